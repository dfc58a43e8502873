// Search results show excerpts, which are fetched from the pages. Browsers refuse that where the
// site is opened as files, without a server; there the results are titles alone.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
