"""What each named tensor is, in a few words, for `trace`."""

# Those of every method.
SHARED_NOTES = {
    "images": "normalised pictures",
    "hook_embed": "patches, class token, positions, layer norm",
    "stage8.projected": "layer norm and projection",
    "stage8.features": "unit length",
    "stage8.text": "unit text embeddings, one row for each name",
    "stage8.logits": "cosine similarity of every patch with every class",
    "stage8.segmentation": "logits at image size, bilinear",
}
# Those of SC-CLIP; {fields} are those of the config.
SCCLIP_NOTES = {
    "stage3.lof_scores": "local outlier factor of the patches of the last layer but one",
    "stage3.scores": "scores of the detector {detector} at the last layer but one",
    "stage3.anomalous": "scores above the quantile 1 - {contamination} of the image",
    "stage3.repaired": "anomalies replaced by the mean of their neighbours",
    "stage4.repaired": "layer {pre_adjust_idx}, repaired at the same positions",
    "stage4.similarity": "cosine similarity at layer {pre_adjust_idx}",
    "stage4.thresholded": "similarities below {beta} set to 0",
    "stage4.aggregated": "similarity-weighted mean of the tokens",
    "stage5.content_attention": "softmax of the centred similarity, negatives masked",
    "stage5.attention": "the last block's attention, without residual and MLP",
    "stage5.class_residual": "plus {res_cls} of the class token",
    "stage6.similarity": "cosine similarity at layer {post_adjust_idx}",
    "stage6.thresholded": "similarities below {beta} set to 0",
    "stage6.aggregated": "similarity-weighted mean of the tokens",
    "stage7.summed_layers": "sum of layers {multi_start_idx} to {multi_end_idx}, the end excluded",
    "stage7.attention": "the same attention, of the auxiliary branch",
    "stage7.class_residual": "plus {res_cls} of the branch's own class token",
    "stage7.aggregated": "similarity-weighted mean of the auxiliary branch",
    "stage7.fused": "main and auxiliary branch added",
}
