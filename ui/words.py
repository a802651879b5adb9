"""Everything the page says, in English and Korean: one table.

Options are named ``option.NAME`` and their values ``choice.NAME.VALUE``. The help of an option is
the dataclass's own, which is English; ``help.NAME`` is what the page says instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LANGUAGES: Mapping[str, str] = {"en": "English", "ko": "한국어"}

_TABLE: Mapping[str, tuple[str, str]] = {
    "title": ("stylecap", "stylecap"),
    "tagline": (
        "Paint your photos like paintings. Everything stays on this machine.",
        "사진을 그림처럼 그려 드립니다. 모든 것은 이 컴퓨터 안에서만 처리됩니다.",
    ),
    "language": ("Language", "언어"),
    "dark": ("Light or dark", "밝게 / 어둡게"),
    # tabs
    "tab.style": ("Style", "스타일"),
    "tab.regions": ("Regions", "영역"),
    "tab.caption": ("Caption", "설명"),
    "tab.batch": ("Batch", "여러 장"),
    "tab.explore": ("Explore", "탐구"),
    "tab.history": ("History", "기록"),
    # painting
    "photo": ("Your photo", "내 사진"),
    "style": ("Style", "스타일"),
    "styles.builtin": ("Built-in styles", "기본 스타일"),
    "styles.hint": (
        "Choose a style, or add a picture of yours as the style above.",
        "스타일을 고르거나, 위의 스타일 칸에 내 그림을 넣으세요.",
    ),
    "paint": ("Paint", "그리기"),
    "expected": (
        "About {time} at most, and {memory} of memory",
        "최대 약 {time}, 메모리 약 {memory}",
    ),
    "stop": ("Stop and keep the picture so far", "멈추고 지금까지의 그림 저장"),
    "preset": ("Quality", "품질"),
    "preset.draft": ("Draft", "초안"),
    "preset.balanced": ("Balanced", "보통"),
    "preset.fine": ("Fine", "고급"),
    "preset.info": ("{name} {size} px, {steps} steps", "{name} {size}px {steps}단계"),
    "more": ("All settings", "모든 설정"),
    "more.styles": ("More styles, mixed with the one above", "위 스타일과 섞을 다른 스타일"),
    "more.styles.info": (
        "With 'Weights of the styles', the style above comes first.",
        "'스타일별 비중'에서는 위의 스타일이 첫 번째입니다.",
    ),
    "more.own": ("Pictures of yours to mix in", "섞을 내 그림"),
    "init.picture": ("Picture to start from", "시작할 그림"),
    "result.empty": (
        "Your painting will appear here.",
        "그림이 여기에 나타납니다.",
    ),
    "result.steps": (
        "Add a photo · choose a style · press Paint",
        "사진 넣기 · 스타일 고르기 · 그리기 누르기",
    ),
    "result.alt": ("The painting so far", "지금까지의 그림"),
    "result.alt.done": ("The painting", "완성된 그림"),
    "before.alt": ("The photo", "사진"),
    "compare": (
        "Compare: photo on the left, painting on the right",
        "비교: 왼쪽 사진, 오른쪽 그림",
    ),
    "fullscreen": ("Full screen", "전체 화면"),
    "download.png": ("Download PNG", "PNG 내려받기"),
    "download.mask": ("Download mask", "마스크 내려받기"),
    "download.jpeg": ("Download JPEG", "JPEG 내려받기"),
    "caption.before": ("The photo", "사진"),
    "caption.after": ("The painting", "그림"),
    "caption.heading": (
        "Does it still show the same? What the captioner reads",
        "여전히 같은 장면인가요? 설명 모델이 읽은 내용",
    ),
    "command": ("Show command", "명령어 보기"),
    "command.shell": ("On the command line", "명령줄"),
    "command.python": ("In Python", "파이썬"),
    "record": ("Settings of this picture", "이 그림의 설정"),
    "many.multiple": ("Pictures", "그림 파일"),
    "many.directory": ("A whole folder", "폴더 전체"),
    # its progress
    "state.waiting": (
        "Waiting: {place} before you. It begins by itself.",
        "대기 중: 앞에 {place}개가 있습니다. 차례가 되면 시작합니다.",
    ),
    "state.starting": ("Starting ...", "시작하는 중 …"),
    "state.running": (
        "Step {step} of {steps}",
        "{steps}단계 중 {step}단계",
    ),
    "state.scale": ("size {scale} of {scales}", "크기 {scale}/{scales}"),
    "state.loss": ("loss {loss}", "손실 {loss}"),
    "state.pace": ("{pace} s a step", "단계당 {pace}초"),
    "state.left": ("about {left} left", "약 {left} 남음"),
    "state.done": ("Done: {steps} steps in {time}.", "완료: {steps}단계, {time}."),
    "state.stopped": (
        "Stopped after {steps} of {of} steps, {time}. The picture so far is kept.",
        "{of}단계 중 {steps}단계에서 멈춤, {time}. 지금까지의 그림을 저장했습니다.",
    ),
    "state.cancelled": ("Stopped before it began.", "시작하기 전에 멈췄습니다."),
    "seconds": ("{n} s", "{n}초"),
    "minutes": ("{n} min", "{n}분"),
    # faults
    "fault.busy": (
        "Busy: too many pictures are waiting just now. Please try again in a few minutes.",
        "지금은 대기 중인 작업이 너무 많습니다. 몇 분 뒤에 다시 시도해 주세요.",
    ),
    "fault.busy.own": (
        "You have a job here already. Wait for it, or stop it.",
        "이미 진행 중인 작업이 있습니다. 기다리거나 멈춰 주세요.",
    ),
    "fault.limit": (
        "That is more than this page takes.",
        "이 페이지가 받을 수 있는 크기를 넘었습니다.",
    ),
    "fault.option": ("One setting cannot be used like this.", "설정 하나를 그대로 쓸 수 없습니다."),
    "fault.input": ("This picture cannot be used.", "이 그림은 사용할 수 없습니다."),
    "fault.output": ("The result could not be kept.", "결과를 저장하지 못했습니다."),
    "fault.record": ("These settings cannot be restored.", "이 설정은 되돌릴 수 없습니다."),
    "fault.weights": (
        "A network's weights are not installed here.",
        "필요한 신경망 가중치가 설치되어 있지 않습니다.",
    ),
    "fault.device": ("This machine cannot do it.", "이 컴퓨터에서는 할 수 없습니다."),
    "fault.other": ("That did not work.", "처리하지 못했습니다."),
    "fault.unexpected": (
        "Something went wrong that should not have. It is in the log.",
        "예상하지 못한 문제가 생겼습니다. 로그에 기록되었습니다.",
    ),
    "fault.number": ("No. {number}", "번호 {number}"),
    "need.photo": ("Add a photo first.", "먼저 사진을 넣어 주세요."),
    "need.style": (
        "Choose a built-in style, or add a picture of yours.",
        "기본 스타일을 고르거나 직접 그림을 넣어 주세요.",
    ),
    "need.mask": (
        "Paint over a part of the photo, or choose a region, first.",
        "먼저 사진의 일부를 칠하거나 영역을 골라 주세요.",
    ),
    # restoring
    "restored": (
        "This picture was painted by stylecap: its settings are back.",
        "stylecap으로 그린 그림입니다. 설정을 되돌렸습니다.",
    ),
    "restored.missing": (
        "No longer here, please add again: {names}.",
        "더 이상 없으니 다시 넣어 주세요: {names}.",
    ),
    "restored.masked": (
        "It was painted in regions: to paint it so again, mark them in the tab Regions.",
        "영역별로 그린 그림입니다. 다시 그리려면 '영역' 탭에서 영역을 표시하세요.",
    ),
    # regions
    "regions.hint": (
        "Paint over a part of the photo, or have regions found and click on those that you want. "
        "What is tinted is inside.",
        "사진의 일부를 칠하거나, 영역을 찾은 뒤 원하는 영역을 누르세요. 색이 덮인 곳이 안쪽입니다.",
    ),
    "regions.steps": (
        "Add a photo · mark a part of it · choose styles · press Paint",
        "사진 넣기 · 일부 표시하기 · 스타일 고르기 · 그리기 누르기",
    ),
    "regions.find": ("Find regions in the photo:", "사진에서 영역 찾기:"),
    "regions.count": ("{n} regions", "영역 {n}개"),
    "regions.one": ("Region {n}", "영역 {n}"),
    "regions.inside": ("Style inside", "안쪽 스타일"),
    "regions.outside": ("Style outside", "바깥쪽 스타일"),
    "regions.inside.own": ("Own picture for inside", "안쪽에 쓸 내 그림"),
    "regions.outside.own": ("Own picture for outside", "바깥쪽에 쓸 내 그림"),
    "regions.keep": ("Keep the photo", "사진 그대로"),
    "regions.own": ("A picture of yours", "내 그림"),
    "mask.canvas": (
        "The photo. Paint with the mouse or a finger, or move with the arrow keys and hold Space.",
        "사진. 마우스나 손가락으로 칠하거나, 화살표 키로 움직이며 스페이스를 누르세요.",
    ),
    "mask.brush": ("Brush", "붓 크기"),
    "mask.erase": ("Erase", "지우개"),
    "mask.undo": ("Undo", "되돌리기"),
    "mask.clear": ("Clear all", "모두 지우기"),
    "mask.invert": ("Swap inside and outside", "안팎 바꾸기"),
    # captions
    "describe": ("Describe", "설명하기"),
    "caption.photo": ("A picture", "그림"),
    "caption.empty": (
        "The sentence appears here. Click a word to see where the network looked.",
        "문장이 여기에 나타납니다. 단어를 누르면 신경망이 본 곳을 보여 줍니다.",
    ),
    "caption.words": ("The sentence; press a word", "문장 (단어를 누르세요)"),
    "caption.word": ("{word}: probability {prob}", "{word}: 확률 {prob}"),
    "caption.looked": ("Where it looked for '{word}'", "'{word}'를 위해 본 곳"),
    "caption.instead": ("Instead of '{word}'", "'{word}' 대신"),
    "caption.instead.hint": (
        "Press one, and the rest of the sentence is found again.",
        "하나를 누르면 나머지 문장을 다시 만듭니다.",
    ),
    "caption.others": ("The best sentences", "가장 좋은 문장"),
    "caption.others.hint": (
        "In the order of their score: how probable they are for their length, how much people "
        "would write so, and how well they fit the picture.",
        "점수 순서입니다. 점수는 확률(길이 고려), 사람들의 표현, 그림과의 일치로 정해집니다.",
    ),
    "caption.prob": ("Probability", "확률"),
    "caption.text": ("Sentence", "문장"),
    "caption.copy": ("Copy", "복사"),
    "caption.copied": ("Copied", "복사됨"),
    "caption.alt": ("Put it into the file as alt text", "대체 텍스트로 파일에 넣기"),
    "caption.alt.done": (
        "Download the picture with its alt text",
        "대체 텍스트가 든 그림 내려받기",
    ),
    "caption.alt.other": (
        "This format has no place for it; here it is as PNG.",
        "이 형식에는 넣을 수 없어 PNG로 저장했습니다.",
    ),
    "caption.none": (
        "There is no captioner on this machine yet, so pictures cannot be described. Whoever runs "
        "this page can add one: stylecap ui --captioner FILE.",
        "이 컴퓨터에는 아직 설명 모델이 없습니다. 페이지 관리자가 "
        "stylecap ui --captioner 파일 로 추가할 수 있습니다.",
    ),
    "caption.settings": ("How words are chosen", "단어를 고르는 방법"),
    "caption.folder": ("Many pictures at once", "여러 장 한꺼번에"),
    "caption.folder.go": ("Describe all", "모두 설명하기"),
    "caption.folder.csv": ("Download the table as CSV", "표를 CSV로 내려받기"),
    "caption.file": ("Picture", "그림"),
    # batches
    "batch.styles.hint": (
        "Choose one or more styles, or add pictures of yours below.",
        "스타일을 하나 이상 고르거나, 아래에 내 그림을 넣으세요.",
    ),
    "batch.own": ("Style pictures of yours", "내 스타일 그림"),
    "batch.go": ("Paint them all", "모두 그리기"),
    "batch.hint": (
        "Every photo is painted in every style. It goes on when you close this page; "
        "come back to find it here.",
        "모든 사진을 모든 스타일로 그립니다. 페이지를 닫아도 계속되며, 다시 오면 여기에 있습니다.",
    ),
    "batch.none": ("Your paintings will appear here.", "그림이 여기에 나타납니다."),
    "batch.steps": (
        "Add photos · choose styles · press Paint them all",
        "사진 넣기 · 스타일 고르기 · 모두 그리기 누르기",
    ),
    "batch.waiting": ("Waiting for its turn", "차례를 기다리는 중"),
    "batch.running": ("Painting", "그리는 중"),
    "batch.done": ("Done", "완료"),
    "batch.stopped": ("Stopped", "멈춤"),
    "batch.failed": ("Failed", "실패"),
    "batch.count": ("{done} of {all} done", "{all}개 중 {done}개 완료"),
    "batch.failures": ("{n} failed", "{n}개 실패"),
    "batch.zip": ("Download ZIP", "ZIP 내려받기"),
    "batch.stop": ("Stop", "멈추기"),
    "batch.remove": ("Delete", "삭제"),
    "batch.remove.sure": (
        "Delete this batch and all its pictures?",
        "이 작업과 그림을 모두 삭제할까요?",
    ),
    "need.photos": ("Add photos first.", "먼저 사진을 넣어 주세요."),
    "need.files": ("Add pictures first.", "먼저 그림을 넣어 주세요."),
    # explore
    "explore.picture": ("A picture", "그림"),
    "explore.network": ("Network", "신경망"),
    "explore.layer": ("Layer", "층"),
    "explore.go": ("Look", "보기"),
    "explore.maps": (
        "The {count} channels of {layer} that answer most",
        "{layer}에서 가장 크게 반응한 채널 {count}개",
    ),
    "explore.pools": (
        "What the poolings make of channel {channel}",
        "채널 {channel}에 풀링을 적용한 결과",
    ),
    "explore.pool.none": ("before", "풀링 전"),
    "explore.pool.max": ("max", "최댓값"),
    "explore.pool.average": ("average", "평균"),
    "explore.pool.stochastic": ("stochastic, expected", "확률적 (기댓값)"),
    "explore.pool.sampled": ("stochastic, one draw", "확률적 (한 번 추출)"),
    "explore.mean": ("mean {mean}", "평균 {mean}"),
    "explore.channel": ("Channel {channel}, mean {mean}", "채널 {channel}, 평균 {mean}"),
    "explore.table": ("Layers at 224 x 224", "224 x 224 입력일 때의 층"),
    "explore.name": ("Layer", "층"),
    "explore.output": ("Output", "출력"),
    "explore.parameters": ("Parameters", "매개변수"),
    "explore.madds": ("Multiply-adds", "곱셈·덧셈"),
    "explore.field": ("Sees (px)", "수용 영역 (px)"),
    "explore.stride": ("Stride (px)", "간격 (px)"),
    "explore.empty": (
        "Add a picture and choose a layer to see what the network sees.",
        "그림을 넣고 층을 고르면 신경망이 보는 것을 보여 줍니다.",
    ),
    # history
    "history.hint": (
        "Pictures painted in this browser. They are deleted after {hours}.",
        "이 브라우저에서 그린 그림입니다. {hours} 뒤에 삭제됩니다.",
    ),
    "hours": ("{n} hours", "{n}시간"),
    "history.empty": ("Nothing painted yet.", "아직 그린 그림이 없습니다."),
    "history.again": ("Use these settings again", "이 설정 다시 쓰기"),
    "history.delete": ("Delete", "삭제"),
    "history.delete.all": ("Delete all my pictures", "내 그림 모두 삭제"),
    "history.delete.sure": (
        "Delete all pictures and batches of this browser? They cannot be brought back.",
        "이 브라우저의 그림과 작업을 모두 삭제할까요? 되돌릴 수 없습니다.",
    ),
    # options of painting
    "option.size": ("Long side, px", "긴 변 (px)"),
    "option.steps": ("Steps", "단계 수"),
    "option.strength": ("Strength of the style", "스타일 강도"),
    "option.color": ("Colours", "색"),
    "option.style_scale": ("Size of the strokes", "붓질 크기"),
    "option.seed": ("Seed", "시드"),
    "option.blend": ("Weights of the styles", "스타일별 비중"),
    "option.early_stopping": (
        "Stop when nothing visible changes",
        "눈에 띄는 변화가 없으면 멈춤",
    ),
    "option.init": ("Start from", "시작 그림"),
    "option.scales": ("Sizes from coarse to fine", "거친 것부터 고운 것까지의 크기 수"),
    "option.objective": ("Objective", "목적 함수"),
    "option.content_weight": ("Content weight", "내용 가중치"),
    "option.style_weight": ("Style weight", "스타일 가중치"),
    "option.tv_weight": ("Total variation weight", "총변동 가중치"),
    "option.backbone": ("Network", "신경망"),
    "option.content_layers": ("Content layers", "내용 층"),
    "option.style_layers": ("Style layers", "스타일 층"),
    "option.layer_weights": ("Weights of the style layers", "스타일 층별 가중치"),
    "option.pooling": ("Pooling", "풀링"),
    "option.optimizer": ("Optimiser", "최적화 방법"),
    "option.learning_rate": ("Learning rate of Adam", "Adam 학습률"),
    "option.color_method": ("How colours are matched", "색을 맞추는 방법"),
    "help.backbone": ("What the picture is seen with", "그림을 보는 신경망"),
    "help.color_method": ("For colours 'In between'", "색을 '중간'으로 했을 때 쓰입니다"),
    "help.content_weight": ("For the objective gatys", "목적 함수 gatys에서 쓰입니다"),
    "help.optimizer": (
        "lbfgs needs fewer steps, adam less memory",
        "lbfgs는 단계가, adam은 메모리가 적게 듭니다",
    ),
    "help.pooling": ("Average looks smoother", "average가 더 부드럽습니다"),
    "help.size": ("", ""),
    "help.strength": ("0 keeps the photo, 1 is all style", "0은 사진 그대로, 1은 스타일만"),
    "help.color": ("", ""),
    "help.seed": ("", ""),
    "help.style_weight": ("For the objective gatys", "목적 함수 gatys에서 쓰입니다"),
    "help.tv_weight": (
        "Makes neighbouring pixels more alike",
        "이웃한 화소를 더 비슷하게 합니다",
    ),
    "help.init": ("", ""),
    "help.blend": (
        "Numbers with commas between them, such as 2, 1; empty for equal",
        "쉼표로 나눈 수 (예: 2, 1). 비우면 같은 비중",
    ),
    "choice.color.style": ("Of the style", "스타일의 색"),
    "choice.color.keep-luminance": ("Keep the photo's", "사진의 색 유지"),
    "choice.color.match": ("In between", "중간"),
    "choice.init.content": ("The photo", "사진"),
    "choice.init.style": ("The style", "스타일"),
    "choice.init.noise": ("Noise", "잡음"),
    "choice.init.image": ("Another picture", "다른 그림"),
    # built-in styles
    "builtin.night-swirls": ("Night swirls", "밤의 소용돌이"),
    "builtin.autumn-strokes": ("Autumn strokes", "가을 붓질"),
    "builtin.palette-knife": ("Palette knife", "팔레트 나이프"),
    "builtin.pointillism": ("Pointillism", "점묘"),
    "builtin.stained-glass": ("Stained glass", "스테인드글라스"),
    "builtin.mosaic": ("Mosaic", "모자이크"),
    "builtin.cubist-facets": ("Cubist facets", "입체파"),
    "builtin.woodcut-waves": ("Woodcut waves", "목판화 물결"),
    "builtin.linocut-leaves": ("Linocut leaves", "리노컷 나뭇잎"),
    "builtin.crosshatch": ("Crosshatch", "펜 빗금"),
    "builtin.watercolor": ("Watercolour", "수채화"),
    "builtin.marbled-paper": ("Marbled paper", "마블링"),
    # options of captions
    "option.method": ("Method", "방법"),
    "option.beam": ("Beam", "빔 크기"),
    "option.alternatives": ("Sentences", "문장 수"),
    "option.unset": ("automatic", "자동"),
    "option.length_penalty": ("Length penalty", "길이 보정"),
    "option.match_weight": ("Weight of the match", "그림 일치 가중치"),
    "option.consensus_weight": ("Weight of what people write", "사람 표현 가중치"),
    "option.temperature": ("Temperature", "온도"),
    "option.top_k": ("Top k", "상위 k"),
    "option.top_p": ("Top p", "상위 p"),
    "option.max_words": ("Longest sentence, words", "최대 단어 수"),
    "choice.method.beam": ("Beam search", "빔 탐색"),
    "choice.method.greedy": ("Greedy", "탐욕"),
    "choice.method.sample": ("Sampling", "표본 추출"),
}

# Help in Korean, where the option's own (English) help should be shown in English.
_KOREAN_HELP: Mapping[str, str] = {
    "steps": "모든 크기에 고르게 나눕니다",
    "early_stopping": "크기마다 따로 봅니다",
    "style_scale": "결과의 긴 변에 대한 스타일 긴 변의 비율",
    "scales": "크기는 매번 두 배가 됩니다",
    "objective": "relative: 강도 하나로 조절, gatys: 논문의 식과 가중치",
    "content_layers": "비우면 보통 쓰는 층",
    "style_layers": "비우면 보통 쓰는 층",
    "layer_weights": "층마다 하나씩, 비우면 모두 1",
    "learning_rate": "화소 값 범위를 1로 본 보폭",
    "method": "단어를 고르는 방법",
    "beam": "빔 탐색이 유지하는 후보 수",
    "alternatives": "보여 줄 문장 수",
    "length_penalty": "로그 확률을 길이의 거듭제곱으로 나눕니다",
    "match_weight": "문장과 그림의 일치를 순위에 반영하는 정도; 0이면 끄고, 비우면 모델의 값",
    "consensus_weight": "비슷한 그림에 쓰인 표현을 반영하는 정도; 0이면 끄고, 비우면 모델의 값",
    "temperature": "1보다 작으면 안전한 단어, 크면 과감한 단어",
    "top_k": "이 수의 단어 중에서 뽑음, 0이면 전부",
    "top_p": "확률의 합이 이 값이 되는 단어 중에서 뽑음",
    "max_words": "가장 긴 설명",
}


class Words:
    """What the page says in one language.

    Args:
        language: one of `LANGUAGES`.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._column = list(LANGUAGES).index(language)

    def __call__(self, key: str, **values: Any) -> str:
        """The words for a key, with values put in."""
        text = _TABLE[key][self._column]
        return text.format(**values) if values else text

    def knows(self, key: str) -> bool:
        """Whether there are words for a key."""
        return key in _TABLE

    def option(self, name: str) -> str:
        """The label of an option."""
        return self(f"option.{name}")

    def help(self, name: str, english: str) -> str:
        """What is said below an option's label."""
        if f"help.{name}" in _TABLE:
            return self(f"help.{name}")
        if self.language == "ko":
            return _KOREAN_HELP.get(name, "")
        return english[:1].upper() + english[1:].rstrip(".")

    def choice(self, name: str, value: str) -> str:
        """How one of an option's values is called; technical names are the same everywhere."""
        key = f"choice.{name}.{value}"
        return self(key) if key in _TABLE else value

    def style(self, name: str) -> str:
        """How a built-in style is called."""
        key = f"builtin.{name}"
        return self(key) if key in _TABLE else name

    def duration(self, seconds: float) -> str:
        """A time span as a person would say it."""
        if seconds < 90:
            return self("seconds", n=max(1, round(seconds)))
        return self("minutes", n=round(seconds / 60))


def keys() -> tuple[str, ...]:
    """All keys of the table."""
    return tuple(_TABLE)
