"""Claims of the article on how the method works."""

from scclip_lab.studies import rules_mechanism as rules
from scclip_lab.studies.claim import Claim

MECHANISM = (
    Claim(
        "2, stage 1",
        "tokens are [B, 197, 768]",
        "run of ViT-B/16's shapes",
        "01_walks",
        rules.shape("hook_embed", "[1, 197, 768]"),
    ),
    Claim(
        "2, stage 4",
        "similarity is [B, 196, 196]",
        "run of ViT-B/16's shapes",
        "01_walks",
        rules.shape("stage4.thresholded", "[1, 196, 196]"),
    ),
    Claim(
        "2, stage 8",
        "features are [B, 196, 512]",
        "run of ViT-B/16's shapes",
        "01_walks",
        rules.shape("stage8.projected", "[1, 196, 512]"),
    ),
    Claim(
        "2, stage 2",
        "the outputs of all 12 layers are kept",
        "tensors of a run with ViT-B/16's shapes",
        "01_walks",
        rules.layers_kept,
    ),
    Claim(
        "2, stage 4",
        "index 8 of the feature list is layer 8",
        "note of the tensor in a run",
        "01_layers",
        rules.ninth_layer,
    ),
    Claim(
        "2, stage 5",
        "negative entries are masked after the softmax",
        "entries below zero, counted",
        "08_reasons",
        rules.mask_after_softmax,
    ),
    Claim(
        "2, stage 3",
        "about 10 of 196 tokens are flagged",
        "flags of a scene",
        "02_stage_three",
        rules.flagged_patches,
    ),
    *(
        Claim(
            "3.1",
            f"anomalies come from: {source}",
            f"share of flags {at}, minus the share of patches there",
            "08_reasons",
            rules.flagged_more_often(where),
        )
        for source, where, at in (
            ("the image's border", "border", "at the border"),
            ("occluded regions", "two objects", "on patches that two objects share"),
            ("rare objects or textures", "rare label", "on words that fill less than 5 %"),
        )
    ),
    Claim(
        "3.1",
        "anomalies come from: lighting",
        "nothing: no test scene has lighting",
        "08_reasons",
        rules.no_lighting,
    ),
    *(
        Claim(
            "3.1",
            f"such a source is found where it is: {source} (our reading)",
            "planted at known patches: ROC AUC of LOF above 0.5",
            "02_detectors",
            rules.found_when_planted(source),
        )
        for source in ("border", "occlusion", "rare texture", "lighting")
    ),
    Claim(
        "3.1",
        "the threshold adapts to the image",
        "numbers of flagged patches over test scenes",
        "08_reasons",
        rules.one_number_of_flags,
    ),
    Claim(
        "3.1",
        "local density makes LOF the right detector",
        "five detectors on planted anomalies: the highest mean, whatever its interval",
        "02_detectors",
        rules.best_detector,
    ),
    *(
        Claim(
            "4.2",
            f"beta = 0.4 is near the median similarity (layer {layer})",
            "median within 0.1; a threshold at the median keeps 50 %, not 30 to 40",
            "03_kept",
            rules.median_similarity(layer),
        )
        for layer in (3, 8)
    ),
    Claim(
        "4.2",
        "beta = 0.4 keeps 30 to 40 % (layer 8)",
        "counted on test scenes",
        "03_kept",
        rules.share_kept(8),
    ),
    Claim(
        "4.2",
        "beta = 0.4 keeps 30 to 40 % (layer 3)",
        "counted on test scenes",
        "03_kept",
        rules.share_kept(3),
    ),
    Claim(
        "3.2",
        "the aggregation is a graph convolution",
        "built from an adjacency matrix; GCN has weights and a symmetric normalisation besides",
        "08_reasons",
        rules.graph_operation,
    ),
    Claim(
        "3.2",
        "similarity has a spatial view: near patches are similar",
        "rank correlation with nearness, layer 3, above 0 at all",
        "08_reasons",
        rules.lies("above", 0, what="similarity and nearness, layer 3"),
    ),
    Claim(
        "3.2",
        "similarity has a semantic view: patches of one label are similar",
        "ROC AUC of same label, layer 8",
        "08_reasons",
        rules.lies("above", 0.5, what="similarity and label, layer 8"),
    ),
    Claim(
        "2, stage 6",
        "layer 8 is the more semantic of the two",
        "ROC AUC of same label, layer 8 minus layer 3",
        "08_reasons",
        rules.lies("above", 0, what="similarity and label, layer 8 minus 3"),
    ),
    *(
        Claim(
            "2, stage 6",
            f"layer 3 is the one with {claimed}",
            f"rank correlation of similarity with {told}, layer 8 minus layer 3",
            "08_reasons",
            rules.lies("below", 0, what=f"similarity and {kind}, layer 8 minus 3"),
        )
        for claimed, kind, told in (
            ("texture and detail (colour)", "colour", "equal mean colour"),
            ("texture and detail (contrast)", "contrast", "equal contrast within the patch"),
            ("the clearer positions in space", "nearness", "nearness"),
        )
    ),
    Claim(
        "3.4",
        "layer 3 has edges, layer 8 parts and objects, layer 12 the scene",
        "objects right when the last block reads the values of a layer; edges, the scene and layer"
        " 12 are not tested, so it can fail here but not hold",
        "phenomena",
        rules.readable_by_depth,
    ),
    Claim(
        "3.4",
        "fusion avoids vanishing gradients",
        "nothing: no gradient is computed",
        "08_reasons",
        rules.needs_training,
    ),
    Claim(
        "2, stage 7",
        "fusion depends less on a single layer",
        "gain of fusion under noise on the last layer but one, minus that without noise",
        "08_reasons",
        rules.gains("gain of fusion in mIoU, under noise minus without"),
    ),
    Claim(
        "2, stage 7",
        "the branches complement each other",
        "object pixels right, both branches minus the better one alone",
        "08_reasons",
        rules.gains("object pixels right, both branches minus the better one"),
    ),
    Claim(
        "3.3",
        "content attention keeps to related regions",
        "share on the same label, against qk",
        "04_purity",
        rules.content_against_qk("share on the same label", True),
    ),
    Claim(
        "3.3",
        "content attention is less noisy",
        "lower entropy than qk; a narrow attention need not be a right one",
        "04_purity",
        rules.content_against_qk("entropy", False),
    ),
)
