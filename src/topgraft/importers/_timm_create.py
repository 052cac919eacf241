"""Creating timm models: from the hub, a folder, a weights file, or at random."""

from __future__ import annotations

from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from topgraft.backbones._pictures import pictures
from topgraft.errors import BackboneError, OfflineError, UnknownNameError
from topgraft.importers._catalogue import RECOMMENDED
from topgraft.importers._timm import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 5
SETTLING = 8
"""Pictures whose statistics a random network gets."""
WAYS_ON = (
    "Three ways on: `topgraft fetch {name} --to DIR` on a machine that reaches it and `--backbone DIR` here; "
    "`--backbone local-dir:PATH` with weights you have; or the built-in default without --backbone."
)


def create(
    name: str,
    *,
    weights: Path | None = None,
    seed: int | None = None,
    size: int | None = None,
    offline: bool = False,
) -> torch.nn.Module:
    """Return a timm model without classifier.

    Args:
        name: `architecture`, `architecture.tag`, `local-dir:PATH` or `hf-hub:OWNER/NAME`.
        weights: a `.safetensors` or `.pth` file to use instead of the pretrained ones.
        seed: for random weights instead of pretrained ones.
        size: the side of the pictures in pixels where it is not the model's own.
        offline: never open a socket; what the hub's own cache holds still works, as it does where the hub
            does not answer within seconds.

    Raises:
        UnknownNameError: for an architecture or tag timm does not know.
        BackboneError: for weights that do not fit, or a `.pth` file that holds more than tensors.
        OfflineError: where the hub cannot be reached.
    """
    import timm
    from huggingface_hub.errors import RepositoryNotFoundError

    tensors = read_tensors(weights) if weights else None
    remote = name.startswith("hf-hub:") or (
        seed is None and weights is None and not name.startswith("local-dir:")
    )
    cut_off = "offline" if offline else _cut_off() if remote and _known(name) else ""
    with quiet(), _hub(bool(cut_off)), _seeded(seed or 0):
        try:
            facts = _resolve(name, size)
            cfg = facts["pretrained_cfg"]
            if cut_off and remote and not cfg.get("hf_hub_id") and cfg.get("url"):
                raise _unreachable(name, cut_off)  # a plain address, which the hub's own switch does not stop
            model = timm.create_model(**facts, pretrained=seed is None and tensors is None)
            return _headless(model, tensors) if seed is None else _settled(_headless(model, tensors))
        except (BackboneError, OfflineError, UnknownNameError):
            raise
        except RepositoryNotFoundError as error:
            raise BackboneError(f"{name}: the hub knows no such model, or it is private.") from error
        except FileNotFoundError as error:
            if name.startswith("local-dir:"):
                raise BackboneError(
                    f"{name}: {error}. It must hold config.json and model.safetensors."
                ) from error
            raise _unreachable(name, cut_off or error) from error
        except OSError as error:
            raise _unreachable(name, cut_off or error) from error
        except (RuntimeError, ValueError, KeyError, TypeError) as error:  # TypeError: unknown `model_args`
            raise BackboneError(f"{name}: {_first_line(error)}") from error


def _headless(model: Any, tensors: dict[str, torch.Tensor] | None) -> torch.nn.Module:
    """Load a file's tensors, where there are any, and take the classifier off.

    Off only now: with the classifier that the weights were trained with, every missing tensor is an error,
    where timm otherwise leaves it at random without a word.
    """
    if tensors is None:
        model.reset_classifier(0)
    else:
        heads = model.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        dropped = tuple(f"{head}." for head in heads)
        model.reset_classifier(0)
        model.load_state_dict(
            {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}
        )
    model.eval()
    return cast("torch.nn.Module", model)


@torch.no_grad()  # type: ignore[untyped-decorator]
def _settled(model: torch.nn.Module) -> torch.nn.Module:
    """Set a random network's statistics to those of pictures, layer by layer, as training would.

    Without them activations grow or vanish with depth: Inception v3's leave float16.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    if not norms:
        return model
    cfg = cast("dict[str, Any]", model.pretrained_cfg)
    _, height, width = cfg.get("test_input_size") or cfg["input_size"]
    mean, std = (torch.tensor(cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    images = torch.from_numpy(pictures(SETTLING, height, width)).permute(0, 3, 1, 2) / 255
    for layer in norms:
        layer.train()
        layer.momentum, layer.usual = 1.0, layer.momentum
    model((images - mean) / std)
    for layer in norms:
        layer.eval()
        layer.momentum = layer.usual
        del layer.usual
    return model


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a weights file: safetensors, or a `.pth` that holds tensors and nothing that could run.

    Raises:
        BackboneError: where it is missing or refused.
    """
    from timm.models import load_state_dict

    try:
        tensors: dict[str, torch.Tensor] = load_state_dict(str(path), weights_only=True)
    except FileNotFoundError as error:
        raise BackboneError(f"{path}: there is no such weights file.") from error
    except Exception as error:
        raise BackboneError(
            f"{path}: refused, it holds more than tensors or is damaged ({_first_line(error)[:120]}). "
            "Save the weights as .safetensors."
        ) from error
    return tensors


def _resolve(name: str, size: int | None) -> dict[str, Any]:
    """Return the arguments of `timm.create_model`, with the size where the architecture needs it."""
    import timm
    from timm.models import resolve_model_input_args

    if not name.startswith(("local-dir:", "hf-hub:")):
        architecture, _, tag = name.partition(".")
        if not timm.is_model(architecture):
            known = [*timm.list_models(), *timm.list_pretrained()]
            close = get_close_matches(name, known, n=1, cutoff=0.5)
            raise UnknownNameError(
                "backbone", name, known if close else [entry.name for entry in RECOMMENDED]
            )
        tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{architecture}.*")]
        if tag and tag not in tags:
            raise UnknownNameError("backbone", name, [f"{architecture}.{known}" for known in tags])
    facts: dict[str, Any] = resolve_model_input_args(name, {"img_size": size} if size else {})
    return facts


def _known(name: str) -> bool:
    """Return whether it is worth asking the hub."""
    import timm

    return name.startswith("hf-hub:") or bool(timm.is_model(name.partition(".")[0]))


def _cut_off() -> str:
    """Return why the hub cannot be reached, in seconds rather than after its client's many tries; or ""."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_S)
    except Exception as error:  # noqa: BLE001 the client's errors share no base class with other errors
        return f"{constants.ENDPOINT}: {_first_line(error)}"
    return ""


def _unreachable(name: str, error: object) -> OfflineError:
    return OfflineError(
        f"{name}: its weights are not on this machine and cannot be fetched ({_first_line(error)[:120]}). "
        + WAYS_ON.format(name=name)
    )


def _first_line(error: object) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


@contextmanager
def _hub(offline: bool) -> Iterator[None]:
    """Hold the hub's client to what it is needed for: no usage reports, no socket where offline."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = offline or before[0], True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = before


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw random weights from a seed, and leave PyTorch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
