"""`relabel seal`: another gate or calibration over what is already refined."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs import console


def seal(
    output: Annotated[str, typer.Argument(help="The folder that `relabel run --output` named.", show_default=False)],
    calibration: Annotated[
        str | None,
        typer.Option(metavar="URI", help="File of `relabel calibrate`; or packaged, or none (the fixed formula)."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="URI", help="YAML with the part `gate`, as `relabel run` takes it.")
    ] = None,
    min_quality_gain: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Keep the coarse mask unless the refined one is estimated so much better."),
    ] = None,
    review_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Estimated quality below which a person should look.")
    ] = None,
    gate: Annotated[
        bool | None, typer.Option("--gate/--no-gate", help="Whether coarse masks may be kept at all.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let this method's result be the current one: a folder below runs/."),
    ] = None,
    assume_exclusive: Annotated[
        bool, typer.Option("--assume-exclusive", help="Take no lease: nobody else writes this output.")
    ] = False,
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for stores other than AWS.")] = None,
) -> None:
    """Seal the current result again, with another calibration or gate: a new generation, and no model runs.

    What is not given stays as it is in the current generation.

    Example: relabel seal s3://bucket/refined --calibration calibration.json
    """
    with console.err.doing("opening the result"):
        from jobs import progress  # these take a second to import
        from pipeline.calibration.files import NAMED
        from pipeline.configuration import read_config
        from pipeline.output.reseal import reseal
        from pipeline.storage import Access, Store
        from pipeline.storage.paths import absolute

        access = Access(endpoint_url)
        wanted: dict[str, Any] = {}
        if config is not None:
            wanted |= read_config(config, "default", {}, access).gate.model_dump(exclude_unset=True)
        options = {
            "calibration": absolute(calibration) if calibration not in (None, *NAMED) else calibration,
            "min_quality_gain": min_quality_gain,
            "review_below": review_below,
            "enabled": gate,
        }
        wanted |= {key: value for key, value in options.items() if value is not None}
    with progress.drawing() as draw:
        sealed = reseal(Store(absolute(output), access), wanted, draw, method=method, assume_exclusive=assume_exclusive)
    progress.summary(sealed.manifest, output)
    if not sealed.changed:
        console.out.tell("nothing changed: the current generation is already this one")
