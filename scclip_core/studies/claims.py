"""Chapter 8, the ledger: every claim of the seed beside what the stored numbers of the other chapters say.

No result is typed here: each row reads a stored table and derives its verdict by a rule.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from scclip_core.studies import stored
from scclip_core.studies.ablation import CLAIMED, MODULES, overlap

HOLDS, FAILS, UNDECIDED = "holds", "does not hold here", "undecided here"
UNTESTED = "cannot be tested without real weights"
Finding = tuple[str, str]  # result as text, verdict


@dataclass(frozen=True)
class Claim:
    """One claim: seed section, what it says, how it is tested here, on what, and the rule that judges it."""

    section: str
    says: str
    test: str
    source: str
    judge: Callable[[pd.DataFrame], Finding]


def ledger() -> pd.DataFrame:
    """A row a claim: section, claim, test, source, result, verdict."""
    rows = []
    for claim in CLAIMS:
        result, verdict = claim.judge(stored(claim.source))
        rows.append((claim.section, claim.says, claim.test, f"figures/{claim.source}.csv", result, verdict))
    return pd.DataFrame(rows, columns=["seed", "claim", "tested by", "numbers", "result", "verdict"])


def _percent(row: pd.Series) -> str:
    return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _sign(row: pd.Series) -> str:
    """A gain is judged by its interval."""
    return HOLDS if row["low"] > 0 else FAILS if row["high"] < 0 else UNDECIDED


def _row(table: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    if len(table) != 1:
        raise ValueError(f"exactly one row must match {where}, got {len(table)}")
    return table.iloc[0]


def _apart(better: pd.Series, worse: pd.Series, text: str) -> Finding:
    """Whether one value lies above another, their intervals apart."""
    verdict = (
        HOLDS if better["low"] > worse["high"] else FAILS if better["high"] < worse["low"] else UNDECIDED
    )
    return text, verdict


def _shape(tensor: str, expected: str) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        shape = _row(table, tensor=tensor)["ViT-B-16"]
        return shape, HOLDS if shape == expected else FAILS

    return judge


def _flags(table: pd.DataFrame) -> Finding:
    count = int(table[table["panel"] == "flagged"]["value"].sum())
    return f"{count} of 196", HOLDS if abs(count - 10) <= 1 else FAILS


def _found(source: str) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        row = _row(table, source=source, detector="local outlier factor", measure="ROC AUC")
        text = f"ROC AUC {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        return text, HOLDS if row["low"] > 0.5 else FAILS if row["high"] < 0.5 else UNDECIDED

    return judge


def _best_detector(table: pd.DataFrame) -> Finding:
    mean = table[table["measure"] == "ROC AUC"].groupby("detector")["value"].mean()
    best, own = mean.idxmax(), mean["local outlier factor"]
    text = f"LOF {own:.2f}, best: {best} {mean.max():.2f} (mean ROC AUC)"
    return text, HOLDS if best == "local outlier factor" else FAILS


def _median(table: pd.DataFrame) -> Finding:
    row = _row(table, layer=8, what="median")
    return f"median {row['value']:.2f} at layer 8", HOLDS if abs(row["value"] - 0.4) <= 0.1 else FAILS


def _kept(layer: int) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        row = _row(table, layer=layer, what="0.4")
        return f"{_percent(row)} % kept", HOLDS if 0.3 <= row["value"] <= 0.4 else FAILS

    return judge


def _first_step(table: pd.DataFrame) -> Finding:
    none, one = _row(table, steps=0), _row(table, steps=1)
    return _apart(one, none, f"mIoU {_percent(none)} before, {_percent(one)} after one step")


def _attention(measure: str, more: bool) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["measure"] == measure].groupby("kind")[["value", "low", "high"]].mean()
        content, own = part.loc["content"], part.loc["qk"]
        text = f"content {content['value']:.2f}, qk {own['value']:.2f}"
        return _apart(*((content, own) if more else (own, content)), text)

    return judge


def _residual_best(table: pd.DataFrame) -> Finding:
    part = table[table["measure"] == "mIoU"]
    best, claimed = part.loc[part["value"].idxmax()], _row(part, res_cls=0.3)
    text = f"best {best['res_cls']:g} ({_percent(best)}), at 0.3 {_percent(claimed)}"
    return text, HOLDS if best["res_cls"] == 0.3 else UNDECIDED if claimed["high"] > best["low"] else FAILS


def _residual(measure: str, weight: float) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["measure"] == measure]
        there, claimed = _row(part, res_cls=weight), _row(part, res_cls=0.3)
        return _apart(
            claimed, there, f"{measure}: {_percent(claimed)} at 0.3, {_percent(there)} at {weight:g}"
        )

    return judge


def _gain(module: str) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        row = _row(table, measure="mIoU", way="added", module=module)
        return f"{_percent(row)} points when added", _sign(row)

    return judge


def _overlap(table: pd.DataFrame) -> Finding:
    row = _row(overlap(table), whose="here, left out", measure="mIoU")
    text = f"left-out gains sum to {row['sum of gains']:.1f}, the total is {row['total gain']:.1f}"
    return text, HOLDS if row["sum of gains"] > row["total gain"] else FAILS


def _swept(name: str, claimed: float) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["parameter"] == name]
        best, own = part.loc[part["value"].idxmax()], _row(part, setting=claimed)
        text = f"best {best['setting']:g} ({_percent(best)}), the seed's {claimed:g} ({_percent(own)})"
        same = best["setting"] == claimed
        return text, HOLDS if same else UNDECIDED if own["high"] > best["low"] else FAILS

    return judge


def _untested(method: str) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        row = _row(table, measure="mIoU", method=method, styles="training")
        return f"here, on emoji scenes: {_percent(row)} mIoU", UNTESTED

    return judge


def _no_row(table: pd.DataFrame) -> Finding:
    return "not measured here", UNTESTED


def _over_vanilla(table: pd.DataFrame) -> Finding:
    row = _row(table, measure="mIoU minus vanilla", method="seed", styles="training")
    return f"{_percent(row)} points of mIoU", _sign(row)


def _ratio(table: pd.DataFrame) -> Finding:
    row = _row(table, model="ViT-B-16", batch=1, what="SC-CLIP (seed)")
    text = f"{row['ratio']:.2f}x ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), ViT-B/16 shapes"
    return text, HOLDS if abs(row["ratio"] - 1.2) <= 0.05 else FAILS + (
        " (it costs less)" if row["ratio"] < 1.2 else " (it costs more)"
    )


def _operations(table: pd.DataFrame) -> Finding:
    row = _row(table, model="ViT-B-16")
    more = 100 * (row["ratio"] - 1)
    return f"{more:+.1f} % multiply-adds", HOLDS if 15 <= more <= 25 else FAILS


def _growth(what: str) -> Callable[[pd.DataFrame], Finding]:
    def judge(table: pd.DataFrame) -> Finding:
        from scclip_core.studies.timing import fit_exponents

        exponent = _row(fit_exponents(table), model="ViT-B-16", what=what)["exponent"]
        return f"time ~ N^{exponent:.2f}, from N = 196", HOLDS if 1.5 <= exponent <= 2.5 else FAILS

    return judge


def _potential(table: pd.DataFrame) -> Finding:
    seed, vanilla = (
        _row(table, measure="mIoU", method=name, styles="training")["value"] for name in ("seed", "vanilla")
    )
    text = f"{seed / vanilla:.1f} times vanilla (partly made by this model's training)"
    return text, HOLDS if seed >= 1.3 * vanilla else FAILS


SETTINGS = {
    "pre_adjust_idx": (8, "layer 8 is the best for the first aggregation"),
    "post_adjust_idx": (3, "layer 3 is the best for the second aggregation"),
    "multi_start_idx": (3, "fusion from layer 3 avoids the noise of the first layers"),
    "beta": (0.4, "beta = 0.4 filters noise best"),
    "lof_neighbors": (30, "k = 30 neighbours for LOF"),
    "contamination": (0.05, "contamination 0.05"),
}
CLAIMS = (
    Claim(
        "2, stage 1",
        "tokens are [B, 197, 768]",
        "run of ViT-B/16's shapes",
        "01_walks",
        _shape("embedded", "[1, 197, 768]"),
    ),
    Claim(
        "2, stage 4",
        "similarity is [B, 196, 196]",
        "run of ViT-B/16's shapes",
        "01_walks",
        _shape("similarity_mid", "[1, 196, 196]"),
    ),
    Claim(
        "2, stage 8",
        "features are [B, 196, 512]",
        "run of ViT-B/16's shapes",
        "01_walks",
        _shape("projected", "[1, 196, 512]"),
    ),
    Claim("2, stage 3", "about 10 of 196 tokens are flagged", "flags of a scene", "02_stage_three", _flags),
    *(
        Claim(
            "3.1",
            f"anomalies come from: {source}",
            "planted at known patches, found by LOF above chance",
            "02_detectors",
            _found(source),
        )
        for source in ("border", "occlusion", "rare texture", "lighting")
    ),
    Claim(
        "3.1",
        "local density makes LOF the right detector",
        "five detectors on planted anomalies",
        "02_detectors",
        _best_detector,
    ),
    Claim(
        "4.2", "beta = 0.4 is near the median similarity", "median at layer 8, within 0.1", "03_kept", _median
    ),
    Claim("4.2", "beta = 0.4 keeps 30 to 40 % (layer 8)", "counted on test scenes", "03_kept", _kept(8)),
    Claim("4.2", "beta = 0.4 keeps 30 to 40 % (layer 3)", "counted on test scenes", "03_kept", _kept(3)),
    Claim(
        "2, stage 4",
        "aggregation smooths noise away",
        "mIoU after one step against none",
        "03_smoothing",
        _first_step,
    ),
    Claim(
        "3.3",
        "content attention keeps to related regions",
        "share on the same label, against qk",
        "04_purity",
        _attention("share on the same label", True),
    ),
    Claim(
        "3.3",
        "content attention is less noisy",
        "lower entropy than qk",
        "04_purity",
        _attention("entropy", False),
    ),
    Claim("4.2", "res_cls = 0.3 is the best balance", "sweep 0 to 1, mIoU", "04_residual", _residual_best),
    Claim(
        "4.2",
        "res_cls above 0.5 loses detail",
        "object pixels right at 0.75 against 0.3",
        "04_residual",
        _residual("object pixels right", 0.75),
    ),
    Claim(
        "4.2",
        "res_cls below 0.1 loses coherence",
        "background pixels right at 0 against 0.3",
        "04_residual",
        _residual("background pixels right", 0.0),
    ),
    *(
        Claim(
            "5.2",
            f"{MODULES[name]} gains {gain} points",
            "added in the seed's order, paired; sign alone is judged",
            "05_modules",
            _gain(name),
        )
        for name, gain in CLAIMED.items()
    ),
    Claim(
        "5.2",
        "gains sum to 14.8, the total is 12.6: they overlap",
        "sum of left-out gains above the total",
        "05_modules",
        _overlap,
    ),
    *(
        Claim("4.1, 4.2", says, "sweep on validation scenes", "05_sweeps", _swept(name, value))
        for name, (value, says) in SETTINGS.items()
    ),
    Claim(
        "5.1",
        "plain CLIP reaches 52.1 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        _untested("vanilla"),
    ),
    Claim(
        "5.1",
        "SC-CLIP reaches 64.7 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        _untested("seed"),
    ),
    Claim(
        "5.1",
        "fine-tuned CLIP reaches 68.3 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        _no_row,
    ),
    Claim(
        "5.1",
        "SC-CLIP is better than plain CLIP",
        "paired difference on test scenes",
        "evaluate_mini",
        _over_vanilla,
    ),
    Claim(
        "6",
        "more than 30 % is to be gained by the forward pass alone",
        "ratio of mIoU to vanilla",
        "evaluate_mini",
        _potential,
    ),
    Claim("5.1", "inference takes 1.2x", "side by side with open_clip", "bench", _ratio),
    Claim(
        "5.3", "about 20 % more computation", "torch's counter of operations", "07_operations", _operations
    ),
    Claim("5.3", "LOF is O(N^2)", "exponent of its time", "07_growth", _growth("LOF alone")),
    Claim("5.3", "similarity is O(N^2 d)", "exponent of its time", "07_growth", _growth("similarity alone")),
)
