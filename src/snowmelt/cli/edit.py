"""`snowmelt edit`: paint into, vary, interpolate, enlarge and colour pictures with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.words import counted, listed
from snowmelt.cli.values import Whole, own_folder, parse_options, parse_seeds

if TYPE_CHECKING:
    from torch import Tensor

    from snowmelt.data.items import Header
    from snowmelt.model.bundle import Model
    from snowmelt.model.condition import Condition
    from snowmelt.sampling.plan import SamplePlan

BATCH = 64


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every edit takes."""

    count: Annotated[Whole, Parameter(name=("-n", "--count"), help="How many results, of seeds --seed and on.")] = 4
    out: Annotated[Path | None, Parameter(help="The folder to write into. Default: edits/NAME in the run.")] = None
    sampler: Annotated[str | None, Parameter(help="As in snowmelt sample. Default: what suits the edit.")] = None
    steps: Annotated[Whole | None, Parameter(help="Steps of the sampler. Default: what suits the edit.")] = None
    grid: Annotated[str | None, Parameter(help="Where it stops: trailing, karras, log-snr, ...")] = None
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", help="An option of the sampler.")] = ()
    clip: Annotated[Literal["none", "clamp", "dynamic"] | None, Parameter(help="As in snowmelt sample.")] = None
    seed: Annotated[Whole, Parameter(help="The first result's seed.")] = 0
    class_: Annotated[str | None, Parameter(name="--class", help="The class to make. Default: none is told.")] = None
    guidance: Annotated[float | None, Parameter(help="As in snowmelt sample, with --class; 1: none.")] = None
    fit: Annotated[
        Literal["crop", "pad", "stretch"] | None, Parameter(help="Resize pictures of another size, in this way.")
    ] = None
    weights: Annotated[Literal["ema", "raw"], Parameter(help="ema: the average; raw: the last step's.")] = "ema"
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    format_: Annotated[Literal["png", "npz", "npy"], Parameter(name="--format", help="As in snowmelt sample.")] = "png"
    overwrite: Annotated[bool, Parameter(negative="", help="Write into a folder that already holds samples.")] = False

    @property
    def table(self) -> Path | None:
        """The file that --sampler names, where it is no sampler's name."""
        return Path(self.sampler) if self.sampler is not None and self.sampler.endswith(".json") else None


STANDARD = Common()


def inpaint(model: Path, image: Path, *, mask: Path, common: Common = STANDARD) -> None:
    """Paint the white part of a mask anew, to fit the rest, which stays exactly as it is.

    Parameters
    ----------
    model
        A run or a model folder.
    image
        The picture.
    mask
        A picture of the same size: white where to paint, black what to keep.
    """
    from snowmelt.sampling.edit import inpaint as paint

    edit = Edit(model, common, "inpaint", ("repaint", 50, {"jump_length": 5, "jump_n_sample": 5}))
    wanted, found = edit.size_of(image), edit.size_of(mask)
    if found != wanted:
        raise SnowmeltError(
            f"--mask {mask} has {found[0]} x {found[1]} pixels, and {image} {wanted[0]} x {wanted[1]}.",
            "Expected as many: white where to paint and black what to keep.",
        )
    picture, known = edit.read(image), edit.read(mask, channels=1)[:1] < 0
    if not bool(known.any()) or bool(known.all()):
        raise SnowmeltError(
            f"--mask {mask} is {'all white' if not bool(known.any()) else 'all black'}.",
            "Expected white where to paint and black what to keep.",
        )

    def make(seeds: Sequence[int], cond: Condition | None) -> Tensor:
        whole = picture.expand(len(seeds), *picture.shape).clone()
        plan = edit.plan
        return paint(plan.denoiser, edit.schedule, plan.tableau, whole, known.to(whole.device), seeds, cond)

    edit.write(make, {"image": str(image), "mask": str(mask)})


def vary(model: Path, image: Path, *, strength: float | None = None, common: Common = STANDARD) -> None:
    """Draw pictures like a given one: it is noised, and the noise removed.

    Parameters
    ----------
    model
        A run or a model folder.
    image
        The picture.
    strength
        How far: above 0 (nearly the same) to 1 (nothing in common), the part of the sampler's steps that is walked.
        Default: 0.5; all steps of a table.
    """
    from snowmelt.sampling.edit import vary as change

    if strength is None:
        strength = 0.5 if common.table is None else 1.0
    edit = Edit(model, common, "vary", strength=strength)
    picture = edit.read(image)

    def make(seeds: Sequence[int], cond: Condition | None) -> Tensor:
        whole = picture.expand(len(seeds), *picture.shape).clone()
        return change(edit.plan.denoiser, edit.schedule, edit.plan.tableau, whole, seeds, cond)

    edit.write(make, {"image": str(image), "strength": strength})


def interpolate(
    model: Path,
    images: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    /,
    *,
    seeds: str | None = None,
    common: Common = STANDARD,
) -> None:
    """Draw the way from one picture to another, or from one seed's sample to another's.

    Parameters
    ----------
    model
        A run or a model folder.
    images
        Two pictures.
    seeds
        Two seeds instead, as in 3,17.
    """
    import torch

    from snowmelt.sampling.edit import between_images, between_seeds

    if (len(images) == 2) == (seeds is not None):
        raise SnowmeltError("interpolate goes between two pictures or two seeds.", "Name two files, or --seeds 3,17.")
    if common.count < 2:
        raise SnowmeltError(f"-n {common.count} is out of range.", "Both ends are drawn: expected at least 2.")
    if common.seed != STANDARD.seed:
        raise SnowmeltError("--seed means nothing here: a way has its two ends.", "Name two files, or --seeds 3,17.")
    if images and common.guidance is None:
        common = replace(common, guidance=1.0)  # there and back is the same way only where nothing leads
    edit = Edit(model, common, "interpolate", ("heun", 50, {}) if images else None)
    parts = torch.linspace(0, 1, common.count)
    plan = edit.plan
    if seeds is not None:
        if common.fit is not None:
            raise SnowmeltError("--fit is for pictures, and the ends are two seeds.", "Leave it out.")
        pair = parse_seeds(seeds, 0, 1)
        if len(pair) != 2:
            raise SnowmeltError(f"--seeds {seeds!r} names {len(pair)} seeds.", "Expected two, as in 3,17.")

        def make(some: Tensor, cond: Condition | None) -> Tensor:
            ends = (pair[0], pair[1])
            shape, device = edit.model.images.shape, edit.model.device
            return between_seeds(plan.denoiser, edit.schedule, plan.tableau, ends, some, shape, device, cond)

        edit.write(make, {"from": pair[0], "to": pair[1]}, parts)
        return
    first, second = (edit.read(path) for path in images)

    def between(some: Tensor, cond: Condition | None) -> Tensor:
        grid = plan.tableau.stops
        return between_images(plan.denoiser, edit.schedule, grid, plan.tableau, first, second, some, cond)

    edit.write(between, {"from": str(images[0]), "to": str(images[1])}, parts)


def upscale(model: Path, image: Path, *, common: Common = STANDARD) -> None:
    """Enlarge a picture to the model's size; shrunk again, the results are the picture.

    Parameters
    ----------
    model
        A run or a model folder.
    image
        The small picture: the model's height and width divided by the same whole number.
    """
    from snowmelt.model.restoration import Shrunk

    if common.fit is not None:
        raise SnowmeltError("--fit means nothing here: the picture is taken as it is.", "Leave it out.")
    edit = Edit(model, common, "upscale", ("ddim", 50, {"eta": 0.85}))
    _, height, width = edit.model.images.shape
    small = edit.size_of(image)
    factor = height // small[0] if small[0] else 0
    if factor < 2 or (small[0] * factor, small[1] * factor) != (height, width):
        alike = small == (height, width)
        why = " already, as the images of the model have" if alike else f", which {height} x {width} is no multiple of"
        raise SnowmeltError(
            f"{image} has {small[0]} x {small[1]} pixels{why}.",
            f"Expected {height} x {width} divided by 2 or more, such as {height // 2} x {width // 2}.",
        )
    edit.restore(Shrunk(factor), edit.read(image, size=small), {"image": str(image), "factor": factor})


def colorize(model: Path, image: Path, *, common: Common = STANDARD) -> None:
    """Give a grey picture colours; grey again, the results are the picture.

    Parameters
    ----------
    model
        A run or a model folder, of colour images.
    image
        The grey picture; of a coloured one only the grey is used.
    """
    from snowmelt.model.restoration import Grey

    edit = Edit(model, common, "colorize", ("ddim", 50, {"eta": 0.85}))
    if edit.model.images.channels != 3:
        found = counted(edit.model.images.channels, "channel")
        raise SnowmeltError(f"{model} makes images of {found}, not of red, green and blue.")
    edit.restore(Grey(), edit.read(image, channels=1), {"image": str(image)})


class Edit:
    """A model, a plan to sample from it, and where the results go.

    default  sampler, steps and options that suit the edit, where the user names none
    """

    def __init__(
        self,
        path: Path,
        common: Common,
        name: str,
        default: tuple[str, int, dict[str, Any]] | None = None,
        strength: float = 1.0,
    ) -> None:
        from snowmelt import api
        from snowmelt.sampling.tableau import load_tableau

        if not 1 <= common.count <= 1_000_000:
            raise SnowmeltError(f"-n {common.count} is out of range.", "Expected at least 1.")
        self.model: Model = api.load(path, weights=common.weights, device=common.device)
        self.schedule = self.model.denoiser.schedule
        self.common, self.name = common, name
        self.folder = common.out if common.out is not None else own_folder(path, "edits") / name
        options, sampler, steps = parse_options(list(common.set_)), common.sampler, common.steps
        if sampler is None and default is not None:
            sampler, usual, kept = default
            most = self.schedule.steps or usual
            steps, options = (min(usual, most) if steps is None else steps), {**kept, **options}
        table = None if common.table is None else load_tableau(common.table)
        if self.model.images.conditions.pair is not None:
            raise SnowmeltError(f"{path} makes images from others, which no edit gives it.", "Use snowmelt sample.")
        names = self.model.images.class_names
        if common.class_ is None and names is not None and self.model.training.get("label_dropout") == 0:
            raise SnowmeltError(
                f"{path} was told a class of every image that it was trained on, and does not know what none is.",
                f"Add --class NAME, of {listed(names)}.",
            )
        if common.class_ is None:  # nothing is told that could be followed more closely
            self.model = replace(self.model, sampler=replace(self.model.sampler, class_guidance=1.0))
        self.plan: SamplePlan = api.plan_sampling(
            self.model,
            sampler=table or sampler,
            steps=steps,
            grid=common.grid,
            options=options,
            clip=common.clip,
            guidance=common.guidance,
            strength=strength,
        )
        if self.plan.away == "class" and common.class_ is None:
            raise SnowmeltError(
                "--guidance follows a class here, and none is named.", "Add --class NAME, or leave --guidance out."
            )

    def size_of(self, path: Path) -> tuple[int, int]:
        """Height and width of a picture file."""
        header = _header(path)
        return header.height, header.width

    def read(self, path: Path, channels: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """A picture as the model sees it: [C, H, W] in [-1, 1], on its device."""
        import torch

        from snowmelt.data.decode import read_image
        from snowmelt.data.items import Target, UnreadableError
        from snowmelt.image.codec import UINT8, UINT16, to_network

        spec = self.model.images
        height, width = size or (spec.height, spec.width)
        header = _header(path)
        found = (header.height, header.width)
        if channels is None and header.channels > spec.channels:
            raise SnowmeltError(
                f"{path} is in colour; the model's images have {spec.channels} channel.", "Make it grey first."
            )
        if found != (height, width) and self.common.fit is None:
            raise SnowmeltError(
                f"{path} has {found[0]} x {found[1]} pixels; the model's images have {height} x {width}.",
                "Resize it, or add --fit crop, pad or stretch.",
            )
        try:
            depth = header.dtype
            with path.open("rb") as file:
                target = Target(depth, channels or spec.channels, height, width, self.common.fit or "stretch")
                pixels = torch.from_numpy(read_image(file, target).copy())
        except (OSError, UnreadableError) as error:
            raise SnowmeltError(f"{path} cannot be read: {error}.", "Expected a picture.") from error
        usual = UINT16 if depth == "uint16" else UINT8
        x = to_network(pixels[None], spec.value_range if spec.value_range.dtype == depth else usual)
        return x[0].to(self.model.device)

    def restore(self, view: Any, seen: Tensor, about: dict[str, Any]) -> None:
        """Draw images that a view shows as `seen`."""
        from snowmelt.sampling.edit import restore

        def make(seeds: Sequence[int], cond: Condition | None) -> Tensor:
            whole = seen.expand(len(seeds), *seen.shape)
            return restore(self.plan.denoiser, self.schedule, self.plan.tableau, view, whole, seeds, cond)

        self.write(make, about)

    def write(
        self,
        make: Callable[[Any, Condition | None], Tensor],
        about: dict[str, Any],
        parts: Tensor | None = None,
    ) -> None:
        """Draw the results in batches and leave them in the folder.

        make   draws those of some seeds, or of some parts if there are any
        parts  [n], where on a way each of them lies, from 0 to 1; they have no seeds of their own
        """
        from snowmelt.model.asked import Asked
        from snowmelt.report.samples import SampleWriter

        common, spec = self.common, self.model.images
        seeds = parse_seeds(None, common.seed, common.count)
        label = None if common.class_ is None else spec.class_index(common.class_)
        asked = Asked(spec, None if label is None else [label] * common.count)
        each = None if parts is None else [{"part": round(part, 6)} for part in parts.tolist()]
        writer = SampleWriter(
            self.folder,
            self.plan,
            common.format_,
            common.overwrite,
            {"edit": self.name, **about},
        )

        def batches() -> Any:
            given = seeds if parts is None else parts
            for start in range(0, common.count, BATCH):
                some = given[start : start + BATCH]
                yield make(some, self._condition(label, len(some))).cpu()

        with writer:
            for images in writer.track(batches(), seeds, asked, each):
                writer.add(images)
        print(f"{common.count:,} images in {self.folder}: look at {self.folder / 'grid.png'}")

    def _condition(self, label: int | None, batch: int) -> Condition | None:
        """The class for each of a batch; withheld where the model knows classes and none is named."""
        import torch

        from snowmelt.model.condition import Condition

        if self.model.images.class_names is None:
            return None
        cond = Condition(label=torch.full((batch,), label or 0, dtype=torch.int64, device=self.model.device))
        return cond if label is not None else cond.withheld(batch, self.model.device)


def _header(path: Path) -> Header:
    """What a picture file says of itself."""
    from snowmelt.data.decode import read_header
    from snowmelt.data.items import UnreadableError

    try:
        with path.open("rb") as file:
            return read_header(file)
    except OSError as error:
        raise SnowmeltError(f"{path} cannot be read: {error.strerror}.", "Expected a picture.") from error
    except UnreadableError as error:
        raise SnowmeltError(f"{path} cannot be read: {error}.", "Expected a picture.") from error
