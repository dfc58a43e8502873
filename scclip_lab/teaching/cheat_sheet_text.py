"""What the cheat sheet says, in English and in Chinese; {fields} are defaults of the config."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage on the cheat sheet.

    Attributes:
        number: "1" to "8".
        module: the file of `scclip_core` that holds it.
        titles: what happens, by language.
        texts: a sentence or two, by language.
        formulas: mathtext.
        tensors: names and shapes, as a run with `run_with_cache` keeps them.
    """

    number: str
    module: str
    titles: dict[str, str]
    texts: dict[str, str]
    formulas: tuple[str, ...]
    tensors: tuple[tuple[str, str], ...]


STAGES = (
    Stage(
        "1",
        "clip.py",
        {"en": "Picture to tokens", "zh": "图像变为 token"},
        {
            "en": "Patches times a matrix E, class token c in front, positions P, layer norm.",
            "zh": "图块乘以矩阵 E，前面加上 class token c，再加位置 P，层归一化。",
        },
        (r"$x = \mathrm{LN}([\,c;\ p_1E;\ \ldots;\ p_NE\,] + P)$",),
        (("images", "[B, 3, H, W]"), ("hook_embed", "[B, L, C]")),
    ),
    Stage(
        "2",
        "clip.py",
        {"en": "Frozen blocks, outputs kept", "zh": "冻结的各块，保存输出"},
        {
            "en": "All blocks but the last run as they are. Layers are counted from 0.",
            "zh": "除最后一个块外照常运行。层号从 0 数起。",
        },
        (
            r"$x' = x + \mathrm{Attn}(\mathrm{LN}_1 x),\quad"
            r" f^{(i)} = x' + \mathrm{MLP}(\mathrm{LN}_2 x')$",
        ),
        (("blocks.0.hook_resid_post", "[B, L, C]"), ("blocks.10.hook_resid_post", "[B, L, C]")),
    ),
    Stage(
        "3",
        "anomaly.py",
        {"en": "Anomalies flagged and repaired", "zh": "异常检测与修复"},
        {
            "en": "Local outlier factor, k = {lof_neighbors}; scores above the 1 - {contamination}"
            " quantile\nbecome the mean of their neighbours on the grid.",
            "zh": "局部异常因子，k = {lof_neighbors}；高于 1 - {contamination} 分位数的 token"
            "\n换成网格上邻居的均值。",
        },
        (
            r"$\mathrm{reach}(i,j) = \max(k\mathrm{dist}(j),\ |x_i - x_j|),\quad"
            r" \mathrm{lrd}(i) = 1\,/\,\mathrm{mean}_{j \in N_k(i)}\ \mathrm{reach}(i,j)$",
            r"$\mathrm{LOF}(i) = \mathrm{mean}_{j \in N_k(i)}\ "
            r"\mathrm{lrd}(j)\,/\,\mathrm{lrd}(i),\quad"
            r" f'_i = \mathrm{mean}_{j \in N_8(i)}\ f_j$",
        ),
        (
            ("stage3.lof_scores", "[B, N]"),
            ("stage3.anomalous", "[B, N]"),
            ("stage3.repaired", "[B, N, C]"),
        ),
    ),
    Stage(
        "4",
        "similarity.py",
        {
            "en": "First aggregation, by layer {pre_adjust_idx}",
            "zh": "第一次聚合（第 {pre_adjust_idx} 层）",
        },
        {
            "en": "Each repaired token becomes the mean of the tokens that it resembles at layer"
            " {pre_adjust_idx}\n(repaired at the same positions), where the cosine is at least"
            " {beta}.",
            "zh": "每个修复后的 token 换成在第 {pre_adjust_idx} 层（同样修复过）与它相似的"
            "\ntoken 的均值，余弦不低于 {beta}。",
        },
        (
            r"$S_{ij} = \cos(f_i, f_j),\quad S_{ij} \to 0\ \mathrm{if}\ S_{ij} < \beta,\quad"
            r" F' = D^{-1} S F,\quad D_{ii} = \sum_j S_{ij} + 10^{-6}$",
        ),
        (
            ("stage4.similarity", "[B, N, N]"),
            ("stage4.thresholded", "[B, N, N]"),
            ("stage4.aggregated", "[B, N, C]"),
        ),
    ),
    Stage(
        "5",
        "attention.py",
        {"en": "Calibrated attention of the last block", "zh": "最后一个块的定制注意力"},
        {
            "en": "Part by content, part as trained (share {mix}); negative logits masked before"
            " the softmax.\nNo residual, no MLP; {res_cls} of the class token is added.",
            "zh": "一部分按内容，一部分按自注意力（比例 {mix}）；负的 logits 在 softmax 前加掩码。"
            "\n无残差、无 MLP；加上 {res_cls} 倍的 class token。",
        },
        (
            r"$A = \mathrm{softmax}({content_gain}\,(S - \bar S)),\quad"
            r" ({mix}\,A + (1 - {mix})\,\mathrm{softmax}(QK^T/\sqrt{d}))\,V\,W_o"
            r" + {res_cls}\,\mathrm{cls}$",
        ),
        (
            ("stage5.content_attention", "[B, N, N]"),
            ("stage5.attention", "[B, N, C]"),
            ("stage5.class_residual", "[B, N, C]"),
        ),
    ),
    Stage(
        "6",
        "similarity.py",
        {
            "en": "Second aggregation, by layer {post_adjust_idx}",
            "zh": "第二次聚合（第 {post_adjust_idx} 层）",
        },
        {
            "en": "The same mean, by the similarities of layer {post_adjust_idx}, which is not"
            " repaired.",
            "zh": "同样的均值，相似度取自第 {post_adjust_idx} 层（不修复）。",
        },
        (r"$F'' = D^{-1} S^{({post_adjust_idx})} F'$",),
        (("stage6.thresholded", "[B, N, N]"), ("stage6.aggregated", "[B, N, C]")),
    ),
    Stage(
        "7",
        "pipeline.py",
        {"en": "Multi-level fusion", "zh": "多层次融合"},
        {
            "en": "The sum of layers {multi_start_idx} to {last_summed} goes through stages 5 and"
            " 6, and is added.",
            "zh": "第 {multi_start_idx} 至 {last_summed} 层之和经过阶段 5、6，再相加。",
        },
        (
            r"$F = F_\mathrm{main} + F_\mathrm{aux},\quad F_\mathrm{aux}\ \mathrm{from}"
            r"\ \sum_{i={multi_start_idx}}^{{last_summed}} f^{(i)}$",
        ),
        (("stage7.summed_layers", "[B, L, C]"), ("stage7.fused", "[B, N, C]")),
    ),
    Stage(
        "8",
        "segmentation.py",
        {"en": "Words, and back to pixels", "zh": "与文本对齐，回到像素"},
        {
            "en": "Layer norm, projection W, length 1; cosine with Q text embeddings; upsampled.",
            "zh": "层归一化、投影 W、单位长度；与 Q 个文本向量求余弦；双线性上采样。",
        },
        (
            r"$z = \mathrm{LN}(F)\,W,\quad \mathrm{logits} = (z / |z|)\,T^T,\quad"
            r" \mathrm{label} = \mathrm{argmax}\ \mathrm{upsample}(\mathrm{logits})$",
        ),
        (
            ("stage8.features", "[B, N, D]"),
            ("stage8.text", "[Q, D]"),
            ("stage8.logits", "[B, rows, cols, Q]"),
            ("stage8.segmentation", "[B, Q, H, W]"),
        ),
    ),
)
WORDS = {
    "en": {
        "title": "SC-CLIP on one page",
        "subtitle": "A frozen CLIP, its forward pass rearranged into a segmenter. No weight is"
        " trained or changed.",
        "tensors": "tensors in the cache",
        "defaults": "Defaults of SCCLIPConfig",
        "symbols": "Symbols",
        "measures": "Measures",
        "use": "In Python",
        "foot": "Bai et al. 2024, arXiv 2411.15869; defaults as in the article, read from the code."
        " Layer i is the output of block i, counted from 0.",
    },
    "zh": {
        "title": "SC-CLIP 速查表",
        "subtitle": "冻结的 CLIP，重排前向传播，成为分割器。不训练、不改动任何参数。",
        "tensors": "缓存中的张量",
        "defaults": "SCCLIPConfig 的默认值",
        "symbols": "符号",
        "measures": "指标",
        "use": "Python 用法",
        "foot": "Bai et al. 2024, arXiv 2411.15869；默认值与文章相同，从代码读出。第 i 层是第 i 个"
        "块的输出，从 0 数起。",
    },
}
SYMBOLS = {
    "en": (
        ("B", "images"),
        ("H, W", "pixels; patch 16 x 16"),
        ("N", "patches, rows x cols"),
        ("L", "tokens, 1 + N"),
        ("C", "width of a token"),
        ("D", "dimension shared with text"),
        ("Q", "words"),
    ),
    "zh": (
        ("B", "图像数"),
        ("H, W", "像素；图块 16 x 16"),
        ("N", "图块数，rows x cols"),
        ("L", "token 数，1 + N"),
        ("C", "token 的宽度"),
        ("D", "与文本共享的维度"),
        ("Q", "词数"),
    ),
}
MEASURES = {
    "en": (
        r"$\mathrm{IoU} = \frac{\mathrm{right}}"
        r"{\mathrm{true} + \mathrm{predicted} - \mathrm{right}}$",
        "mIoU: mean over the classes that are true",
        "objects right: share of object pixels with the right word",
        "background right: the same of all other pixels",
        "paired difference: two methods on the same scenes",
    ),
    "zh": (
        r"$\mathrm{IoU} = \frac{\mathrm{right}}"
        r"{\mathrm{true} + \mathrm{predicted} - \mathrm{right}}$",
        "mIoU：真实标签中出现的类别的均值",
        "物体正确率：物体像素中标对的比例",
        "背景正确率：其余像素中标对的比例",
        "配对差值：两种方法在同一批场景上的差",
    ),
}
CODE = (
    "from scclip_core import SCCLIP, SCCLIPConfig, load_clip",
    'model = load_clip("mini")',
    "segmenter = SCCLIP(model)",
    'segmenter.predict("scene.png", ["dog", "grass"])',
    "images = torch.stack([model.preprocess(picture)])",
    'features, cache = segmenter.run_with_cache(images, "*")',
    "SCCLIP(model, SCCLIPConfig(repair=False))",
)
