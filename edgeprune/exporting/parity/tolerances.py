"""How far apart two outputs may be that should agree, by kind of link, each with its reason and its remedy."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may differ; a limit that is None is not applied.

    `relative_error` is the largest error over the largest reference magnitude. Noise passes at `sqnr_db`; down to
    `least_sqnr_db` it passes where the top-1 classes of `top1_agreement` of the rows still agree. Every channel of the
    output must keep `channel_db` at its own scale: where less is left, next to nothing of it is.
    """

    reason: str
    remedy: str
    relative_error: float | None = None
    sqnr_db: float | None = None
    least_sqnr_db: float | None = None
    top1_agreement: float | None = None
    channel_db: float | None = None

    def describe(self) -> str:
        """For people: what is needed."""
        needs = []
        if self.relative_error is not None:
            needs.append(f"relative error <= {self.relative_error:g}")
        if self.sqnr_db is not None:
            needs.append(f"SQNR >= {self.sqnr_db:g} dB")
        if self.least_sqnr_db is not None and self.top1_agreement is not None:
            needs[-1] += f" (>= {self.least_sqnr_db:g} dB where top-1 agreement >= {self.top1_agreement:.0%})"
        if self.channel_db is not None:
            needs.append(f"{self.channel_db:g} dB in every channel")
        return " and ".join(needs)


INT8 = Tolerance(
    reason="good static int8 keeps 30 to 50 dB; below 20 dB decisions flip, below 15 dB a scale is wrong",
    remedy="give more typical calibration data, keep the layers that matter in float (--precision mixed), or ship fp32",
    sqnr_db=20.0,
    least_sqnr_db=15.0,
    top1_agreement=0.95,
    channel_db=6.0,
)
TOLERANCES = {
    "fp32": Tolerance(
        reason="converters reorder float32 sums: errors of 1e-7 to 1e-6 of the largest output are usual",
        remedy="the model may be in training mode or hold an operator that the converter gets wrong: "
        "try the other format, and report the model",
        relative_error=1e-4,
        channel_db=40.0,
    ),
    "fp16": Tolerance(
        reason="one rounding to 11 bits leaves 74 dB, and 200 of them in a row take 23 dB away; "
        "a value beyond 65504 or below 6e-8 is lost altogether",
        remedy="the model holds values that float16 cannot: ship fp32 or int8",
        sqnr_db=45.0,
        channel_db=20.0,
    ),
    "int8": INT8,
    "mixed": replace(
        INT8,
        reason="no layer in it is noisier than in int8, and those that matter most are not rounded at all",
        remedy="give more typical calibration data, or ship fp32",
    ),
    "dynamic-int8": Tolerance(
        reason="as static int8, but ranges are found as it runs and never clip: 36 to 47 dB are usual",
        remedy="one channel's weights dwarf the others', or one activation does: ship fp32 or fp16",
        sqnr_db=25.0,
        least_sqnr_db=15.0,
        top1_agreement=0.95,
        channel_db=6.0,
    ),
    "int16x8": Tolerance(
        reason="only weights are rounded to 8 bits: 36 to 43 dB are usual, and what is less was clipped",
        remedy="give more typical calibration data, or ship fp32",
        sqnr_db=30.0,
        least_sqnr_db=20.0,
        top1_agreement=0.95,
        channel_db=6.0,
    ),
    "kernels": Tolerance(
        reason="kernels that only round differently agree to 40 dB and more; saturating ones fell to 21.6 dB",
        remedy="the int8 kernels saturate on this processor: quantize again with OnnxScheme reduce_range=True",
        sqnr_db=27.0,
        channel_db=0.0,
    ),
    "xnnpack": replace(
        INT8,
        channel_db=0.0,
        reason="kernels that only round differently lie as far apart as each does from float; wrong ones gave 5 dB",
        remedy="XNNPACK computes int8 wrong on this processor: update ai-edge-litert, or ship fp32",
    ),
}
"""Kind of link to its default limits."""
