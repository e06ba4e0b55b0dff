"""`relabel calibrate`: quality estimates fitted to a sample whose truth you know, or the gate to people's verdicts."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from jobs import console
from jobs.targets import target_file
from pipeline.calibration.certificates import DEFAULT_CONFIDENCE, DEFAULT_IOUS, DEFAULT_SHARE, images_needed
from pipeline.errors import RefusedError
from pipeline.storage import Access, split_uri
from pipeline.words import plural
from schemas.calibration import Calibration


def calibrate(
    result: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The folder that `relabel run --output` named.", show_default=False)
    ],
    output: Annotated[str, typer.Option(help="Where the calibration goes, as JSON.")],
    ground_truth: Annotated[
        str | None,
        typer.Option(help="COCO JSON of accurate masks of randomly chosen images; ids as in the masks' source."),
    ] = None,
    verdicts: Annotated[
        bool,
        typer.Option(
            "--verdicts", help="No ground truth: set the gate to the threshold that best matches `relabel review`."
        ),
    ] = False,
    corrections: Annotated[
        bool,
        typer.Option(
            "--corrections", help="The truth is what people sent back: masks of `relabel review --from FILE`."
        ),
    ] = False,
    iou: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, help="IoU to certify; may be given several times. Default: 0.7, 0.8, 0.9."),
    ] = None,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of masks to reach it.")] = DEFAULT_SHARE,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Joint confidence of all certificates.")
    ] = DEFAULT_CONFIDENCE,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Fit the quality estimates to ground truth, and certify guarantees for masks above a quality threshold.

    Half of the sample's images are fitted to, the other half supports the
    guarantees. Then `relabel seal OUTPUT --calibration FILE` applies it.

    With --verdicts, what people said of masks drawn at random decides when
    the refined mask is kept; nothing is guaranteed. With --corrections, what
    they corrected and what they left is the truth; guarantees then hold for
    images chosen as those were.

    Example: relabel calibrate s3://b/refined --ground-truth sample.json --output calibration.json
    """
    access = Access(endpoint_url)
    if sum((verdicts, corrections, ground_truth is not None)) != 1:
        raise RefusedError("give one of --ground-truth FILE, --verdicts and --corrections")
    target_file("--output", output, access, [result, ground_truth])
    if verdicts:
        _follow_verdicts(result, output, access)
        return
    with console.err.doing("reading and measuring masks"):
        from pipeline.calibration.fit import calibrate as fit  # scikit-learn takes seconds to import
        from pipeline.calibration.sample import read_corrections, read_sample

        found = read_sample(result, ground_truth, access) if ground_truth else read_corrections(result, access)
    sample, base, method, gate = found
    fitted = fit(sample, base, method, gate, ious=tuple(iou or DEFAULT_IOUS), share=share, confidence=confidence)
    _show(fitted)
    _write(fitted, result, output, access)


def _follow_verdicts(result: str, output: str, access: Access) -> None:
    with console.err.doing("reading the verdicts"):
        from pipeline.calibration.verdicts import calibrate_by_verdicts  # as above

        found = calibrate_by_verdicts(result, access)
    console.out.tell(
        f"{found.calibration_id}: the refined mask is kept where it is estimated {found.margin:+.3f} better; that "
        f"agrees with {found.fitted_on['agreed']:.0%} of the {_number(found, 'verdict')} it was chosen on "
        f"(before: {found.fitted_on['agreed_before']:.0%}); nothing is certified without ground truth"
    )
    _write(found, result, output, access)


def _write(found: Calibration, result: str, output: str, access: Access) -> None:
    store, name = split_uri(output, access)
    store.put(name, found.model_dump_json(indent=1).encode())
    console.out.offer(f"wrote {output}\nuse it: relabel seal {result} --calibration {output}")


def _number(found: Calibration, what: str) -> str:
    return plural(int(found.fitted_on[f"{what}s"]), what)


def _show(found: Calibration) -> None:
    error = found.fitted_on["calibration_error"]
    console.out.tell(
        f"{found.calibration_id}: expected calibration error {error:.3f} on {_number(found, 'mask')} of "
        f"{_number(found, 'image')} that it was not fitted to; the refined mask is kept where it "
        f"is estimated {found.margin:+.3f} better; {found.lower_share:.0%} of the masks are better than quality_lower"
    )
    table = Table(
        title=f"of the masks with quality >= q, at least {found.certificates[0].share:.0%} have IoU >= t",
        title_justify="left",
    )
    for column in ("IoU t", "smallest q certified", "masks", "images", "observed"):
        table.add_column(column, justify="right")
    for wanted in sorted({one.iou for one in found.certificates}):
        shown = [one for one in found.certificates if one.iou == wanted and one.certified]
        if shown:
            first = min(shown, key=lambda one: one.quality)
            cells = [f"{first.quality:.2f}", str(first.masks), str(first.images), f"{first.observed:.1%}"]
        else:
            cells = ["not certifiable", "-", "-", "-"]
        table.add_row(f"{wanted:.2f}", *cells)
    console.out.show(table)
    ious = len({one.iou for one in found.certificates})
    needed = images_needed(ious, found.certificates[0].share, found.confidence or DEFAULT_CONFIDENCE)
    if max(one.images for one in found.certificates) < needed:
        console.out.tell(
            f"a certificate takes at least {needed} of the images that nothing was fitted to, and as many again to fit "
            "to: give more ground truth, or ask for less (--iou once, --share, --confidence)"
        )
    if any(one.certified for one in found.certificates):
        console.out.tell(
            f"all of them hold together with a confidence of {found.confidence:.0%}, each image counting once, for "
            "images like these, refined and sealed in the same way"
        )
