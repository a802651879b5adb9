"""What the library says went wrong, in the words of the page.

Its sentences are English, made where the mistake is found. Here they are recognised by their fixed
parts; what stands between is put into the sentence of the page's language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .words import Words

_KOREAN: Mapping[str, str] = {
    # options
    "a whole number from {least} to {most}": "{least}부터 {most}까지의 정수",
    "a whole number of at least {least}": "{least} 이상의 정수",
    "a whole number": "정수",
    "a number from {least} to {most}": "{least}부터 {most}까지의 수",
    "a number of at least {least}": "{least} 이상의 수",
    "a number": "수",
    "values, each {expected}": "쉼표로 나눈 값(각각 {expected})",
    "one of {names}": "다음 중 하나({names})",
    "{count} values, one for each of {names}": "{names} 각각에 하나씩, 값 {count}개",
    "{count} weights, one a style": "스타일마다 하나씩, 비중 {count}개",
    "{count} weights, one for each style": "스타일마다 하나씩, 비중 {count}개",
    "{option}: at least one weight must be above 0": (
        "{option}: 0보다 큰 비중이 하나는 있어야 합니다."
    ),
    "{option}: with a mask each style has its own region; leave blend out": (
        "{option}: 영역을 칠하면 스타일마다 자기 영역이 있으므로 비중을 비워 두세요."
    ),
    "{option}: to start from a picture, choose 'image' and add that picture": (
        "{option}: 그림에서 시작하려면 시작할 그림을 넣어 주세요."
    ),
    "layers: {network} has no layer {name}; it has {names}": (
        "{network}에는 {name} 층이 없습니다. 있는 층: {names}"
    ),
    "layers: {network} has {count} layers, got {given}": (
        "{network}의 층은 {count}개입니다. 받은 층: {given}개"
    ),
    "match_weight: this captioner has no matcher, expected 0, got {value}; leave it out": (
        "이 설명 모델에는 그림 일치 모델이 없습니다. 그림 일치 가중치를 비워 두세요."
    ),
    "consensus_weight: this captioner has no consensus, expected 0, got {value}; leave it out": (
        "이 설명 모델은 사람들이 쓰는 표현을 배우지 않았습니다. 사람 표현 가중치를 비워 두세요."
    ),
    "prefix: this captioner does not know the word {word}; it knows {count} words, choose others": (
        "설명 모델이 모르는 단어입니다: {word}. 다른 단어를 골라 주세요(아는 단어 {count}개)."
    ),
    "prefix: expected at most max_words={most} words, got {count}": (
        "시작 단어는 {most}개까지입니다. 받은 단어: {count}개"
    ),
    # limits of the page
    "size: this page paints up to {most} px, got {value}": (
        "크기는 {most}px까지입니다. 받은 크기: {value}px"
    ),
    "steps: this page makes up to {most}, got {value}": (
        "단계는 {most}까지입니다. 받은 단계: {value}"
    ),
    "style: this page mixes up to {most} styles, got {count}": (
        "스타일은 {most}개까지 섞을 수 있습니다. 받은 스타일: {count}개"
    ),
    "batch: this page paints up to {most} pictures at a time, got {count}": (
        "한 번에 {most}장까지 그릴 수 있습니다. 받은 것: {count}장"
    ),
    "folder: this page describes up to {most} pictures at a time, got {count}": (
        "한 번에 {most}장까지 설명할 수 있습니다. 받은 것: {count}장"
    ),
    "{file}: {size} pixels are more than this page's {most} megapixels; give a smaller picture": (
        "{file}: {size} 화소는 이 페이지의 한도 {most}메가픽셀을 넘습니다. "
        "더 작은 그림을 넣어 주세요."
    ),
    "{file}: {size} pixels are more than the limit of {most}; give a smaller picture": (
        "{file}: {size} 화소는 한도 {most} 화소를 넘습니다. 더 작은 그림을 넣어 주세요."
    ),
    "{file}: larger than {most} MB; give a smaller file": (
        "{file}: {most}MB보다 큽니다. 더 작은 파일을 넣어 주세요."
    ),
    # files
    "{file}: is empty (0 bytes); give a picture file": (
        "{file}: 빈 파일입니다. 그림 파일을 넣어 주세요."
    ),
    "{file}: is text, not a picture; expected {formats}": (
        "{file}: 그림이 아니라 글입니다. 쓸 수 있는 형식: {formats}"
    ),
    "{file}: is not a picture; expected {formats}": (
        "{file}: 그림이 아닙니다. 쓸 수 있는 형식: {formats}"
    ),
    "{file}: is a HEIC picture, which needs pillow-heif; {command}": (
        "{file}: HEIC 그림을 읽으려면 pillow-heif가 필요합니다({command})."
    ),
    "{file}: damaged or incomplete {format} file ({reason}); get a sound copy": (
        "{file}: {format} 파일이 손상되었거나 완전하지 않습니다({reason}). "
        "온전한 파일을 넣어 주세요."
    ),
    "{file}: there is too little memory to decode it; give a smaller picture": (
        "{file}: 읽을 메모리가 모자랍니다. 더 작은 그림을 넣어 주세요."
    ),
    "content: {size} px is too small for the layers of {network}, which need {least} px a side; "
    "choose a larger size or a less narrow picture": (
        "{size}px 그림은 {network}에 너무 작습니다(한 변에 {least}px 이상). "
        "더 큰 크기나 덜 좁은 그림을 골라 주세요."
    ),
    "image: {layer} of {network} needs at least {least} pixels, got {size}; choose a larger size": (
        "{network}의 {layer} 층에는 {least} 화소 이상이 필요합니다. 받은 그림: {size}. "
        "더 큰 그림을 넣어 주세요."
    ),
    "picture: there are not {count} different regions in it; ask for fewer": (
        "서로 다른 영역이 {count}개가 되지 않는 그림입니다. 더 적은 수를 골라 주세요."
    ),
    # what is no longer here
    "this picture is no longer here; add it again": "이 그림은 더 이상 없습니다. 다시 넣어 주세요.",
    "this picture is no longer kept": "이 그림은 더 이상 보관되어 있지 않습니다.",
    "this picture is no longer kept; pictures are deleted after a while": (
        "이 그림은 더 이상 보관되어 있지 않습니다. 그림은 얼마 뒤에 지워집니다."
    ),
    "this visitor is unknown; reload the page": (
        "알 수 없는 방문자입니다. 페이지를 새로 고쳐 주세요."
    ),
    "this visitor is unknown; reload the page and allow its cookie": (
        "알 수 없는 방문자입니다. 쿠키를 허용하고 페이지를 새로 고쳐 주세요."
    ),
    "record: this picture does not say how it was painted": (
        "어떻게 그렸는지 적혀 있지 않은 그림입니다."
    ),
    "mask: expected what was painted on the page": "페이지에서 칠한 영역이 아닙니다.",
    "size: {size} needs at least {least} GB on {device}, where it may take {most} GB; "
    "size {fits} would fit": (
        "{size}px 그림에는 메모리가 적어도 {least}GB 필요한데 {most}GB만 쓸 수 있습니다. "
        "크기 {fits}이면 됩니다."
    ),
    "mask: no pixel has the colour {color}; {advice}": "칠한 영역에 {color} 색이 없습니다.",
    "out of memory on {device} at size {size}; choose a smaller size": (
        "크기 {size}에는 메모리가 모자랍니다. 더 작은 크기를 골라 주세요."
    ),
    "too little memory": "메모리가 모자랍니다.",
    "unexpected error, in the log as {number}": (
        "예상하지 못한 문제가 생겼습니다. 로그에 {number} 번호로 기록되었습니다."
    ),
    # the most general last
    "{option}: expected {expected}, got {value}": (
        "{option}: 쓸 수 있는 값은 {expected}입니다. 받은 값: {value}"
    ),
}


def _pattern(sentence: str) -> re.Pattern[str]:
    """A sentence with names in braces as a pattern with groups of those names."""
    parts = re.split(r"\{(\w+)\}", sentence)
    return re.compile(
        "".join(
            f"(?P<{part}>.+?)" if order % 2 else re.escape(part) for order, part in enumerate(parts)
        ),
        re.DOTALL,
    )


_PATTERNS = [(_pattern(english), korean) for english, korean in _KOREAN.items()]


def reason(words: Words, text: str) -> str:
    """A sentence of the library as the page says it; one that is not known stays as it is."""
    for pattern, korean in _PATTERNS if words.language == "ko" else ():
        found = pattern.fullmatch(text)
        if found is not None:
            return korean.format(**{n: _part(words, n, v) for n, v in found.groupdict().items()})
    name, colon, rest = text.partition(": ")
    return _label(words, name) + colon + rest


def _part(words: Words, name: str, value: str) -> str:
    if name == "option":
        return _label(words, value)
    return reason(words, value) if name == "expected" else value


def _label(words: Words, name: str) -> str:
    """What an option is called on the page; other words stay."""
    return words.option(name) if words.knows(f"option.{name}") else name
