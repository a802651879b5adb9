"""The file of a captioner: weights, rounded, and everything else as JSON, in one safetensors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from stylecap.captioning.captioner import Captioner
from stylecap.captioning.consensus import Consensus
from stylecap.captioning.features import View
from stylecap.captioning.matching import Matcher
from stylecap.captioning.model import CaptionDecoder, DecoderShape
from stylecap.captioning.rounding import pack, unpack
from stylecap.captioning.vocabulary import Vocabulary
from stylecap.errors import InputError, WeightsError
from stylecap.runtime import Runtime
from stylecap.tensorfile import load_tensors, save_tensors, under
from stylecap.weights import find_weights

_FORMAT = 1
_OPTIONAL = ("beam", "match_weight", "consensus_weight")  # not in every file of this format


def save_captioner(captioner: Captioner, path: str | Path) -> None:
    """Write a captioner with its judges.

    Raises:
        OutputError: the file cannot be written.
    """
    header = {
        "format": _FORMAT,
        "view": asdict(captioner.view),
        "decoders": [asdict(decoder.shape) for decoder in captioner.decoders],
        "words": captioner.vocabulary.words,
        "beam": captioner.beam,
        "length_penalty": captioner.length_penalty,
        "match_weight": captioner.match_weight,
        "consensus_weight": captioner.consensus_weight,
        "record": captioner.record,
    }
    tensors = pack(
        {
            f"{index}/{name}": weight.detach()
            for index, decoder in enumerate(captioner.decoders)
            for name, weight in decoder.named_parameters()
        }
    )
    for judge in (captioner.matcher, captioner.consensus):
        if judge is not None:
            header |= judge.header()
            tensors |= judge.tensors()
    save_tensors(path, header, tensors)


def load_captioner(
    name: str | Path = "vgg16",
    *,
    runtime: Runtime | None = None,
    weights: str | Path | None = None,
) -> Captioner:
    """Load a captioner that comes with stylecap, or one of your own.

    Args:
        name: of a backbone whose captioner is shipped, or the path of a ``.safetensors`` file.
        runtime: device and precision; the fastest here if None.
        weights: folder to take shipped weights from, instead of the usual places.
    Raises:
        WeightsError: there is no such captioner, or its file is damaged.
        InputError: the path is not a captioner of this program and version.
    """
    if isinstance(name, Path) or name.endswith(".safetensors"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{path}: there is no such captioner")
    else:
        path = find_weights(f"captioner-{name}", weights)
    header, tensors = load_tensors(path, "captioner", _FORMAT, ("view", "decoders"))
    try:
        decoders = []
        for index, shape in enumerate(header["decoders"]):
            decoder = CaptionDecoder(DecoderShape(**shape))
            decoder.load_state_dict(unpack(under(tensors, f"{index}/")))
            decoders.append(decoder)
        view = View(**{**header["view"], "layers": tuple(header["view"]["layers"])})
        words = Vocabulary(header["words"])
        return Captioner(
            decoders,
            words,
            view,
            matcher=Matcher.of(header, tensors),
            consensus=Consensus.of(header, tensors, len(words), view),
            length_penalty=header["length_penalty"],
            record=header["record"],
            runtime=runtime or Runtime.choose(),
            **{entry: header[entry] for entry in _OPTIONAL if entry in header},
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: the captioner is damaged or incomplete: {error}") from error
