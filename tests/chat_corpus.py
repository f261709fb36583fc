"""Conversations as clients send them, and what the chat template of an alpaca-like run makes of each: no Jinja here."""

import itertools

from sft.prompt.template import PromptTemplate


def said(role, *contents):
    return [{"role": role, "content": content} for content in contents]


def user(*contents):
    return said("user", *contents)


def assistant(*contents):
    return said("assistant", *contents)


def system(*contents):
    return said("system", *contents)


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
JA, EN = "\n\n### 入力:\n", "\n\n### Input:\n"
LIBRARY = f"何曜日が休みですか。{JA}図書館は月曜日が休みです。"
TURNS = [*user("首都は?"), *assistant("東京です。"), *user("人口は?")]

CONVERSATIONS = {
    "a question": user("富士山の高さは?"),
    "white space at its ends": user("  高さは?\n一行で。\n"),
    "a context": user(LIBRARY),
    "an English context": user(f"When is it closed?{EN}On Mondays."),
    "a context of several lines": user(f"要約して。{JA}一行目。\n\n二行目。\n"),
    "quotes and braces": user('「"引用"」と\\を{{ x }}{% raw %}の中に。'),
    "a Jinja comment": user("{# これは本文 #}とは?"),
    "carriage returns and tabs": user("a\r\nb\tc"),
    "emoji and rare kanji": user("😀と鱻と𠮷"),
    "no words": user(""),
    "white space alone": user(" \n "),
    "nothing": [],
    "no content": user(None),
    "no parts": user([]),
    "a system message": [*system("親切に。"), *user("首都は?")],
    "a system message and a context": [*system("親切に。"), *user(LIBRARY)],
    "an empty system message": [*system(""), *user("首都は?")],
    "a system message without content": [*system(None), *user("首都は?")],
    "a system message in parts": [*system(parts("親切に。", "短く。")), *user("首都は?")],
    "two system messages": [*system("親切に。", "短く。"), *user("首都は?")],
    "a late system message": [*TURNS, *system("短く。")],
    "a system message between": [*user("首都は?"), *system("短く。"), *assistant("東京。"), *user("人口は?")],
    "a developer's message": [*said("developer", "親切に。"), *user("首都は?")],
    "a system message alone": system("親切に。"),
    "a system message with an answer": [*system("親切に。"), *assistant("はい。"), *user("首都は?")],
    "one earlier turn": TURNS,
    "an earlier turn and a system message": [*system("親切に。"), *TURNS],
    "three earlier turns": [
        *TURNS,
        *assistant("1400万人です。"),
        *user("面積は?"),
        *assistant("狭いです。"),
        *user("川は?"),
    ],
    "an earlier context": [*user(LIBRARY), *assistant("月曜日です。"), *user("祝日は?")],
    "a context at last": [*user("こんにちは"), *assistant("はい。"), *user(LIBRARY)],
    "contexts in both": [*user(LIBRARY), *assistant("月曜日です。"), *user(LIBRARY)],
    "an answer with white space": [*user("首都は?"), *assistant(" 東京\n"), *user("人口は?")],
    "an answer with the prompt's words": [*user("首都は?"), *assistant("### 応答:\n東京"), *user("人口は?")],
    "an empty answer": [*user("首都は?"), *assistant(""), *user("人口は?")],
    "an answer without content": [*user("首都は?"), *assistant(None), *user("人口は?")],
    "an answer in parts": [*user("首都は?"), *assistant(parts("東京", "です。")), *user("人口は?")],
    "two answers": [*user("首都は?"), *assistant("東京。", "日本です。"), *user("人口は?")],
    "two answers, one empty": [*user("首都は?"), *assistant("", "日本です。"), *user("人口は?")],
    "an answer first": [*assistant("ご用件は?"), *user("首都は?")],
    "an answer alone": assistant("ご用件は?"),
    "an answer at last": [*user("首都は?"), *assistant("東京")],
    "two questions": user("首都は?", "人口は?"),
    "two questions, the first empty": user("", "人口は?"),
    "two questions, the last empty": user("首都は?", ""),
    "a question and a context after it": user("何曜日が休みですか。", f"{JA}図書館は月曜日が休みです。"),
    "three questions and an answer": [*user("一", "二", "三"), *assistant("四"), *user("五", "六")],
    "a part": user(parts("首都は?")),
    "two parts": user(parts("首都は?", "人口は?")),
    "an empty part": user(parts("首都は?", "")),
    "parts that are texts": user(["首都は?", "人口は?"]),
    "an image": user([*parts("何の写真?"), IMAGE]),
    "parts in history": [*user(parts("首都は?")), *assistant("東京"), *user(parts("人口は?"))],
    "a tool's result": [*user("天気は?"), *assistant(None), *said("tool", '{"weather": "晴れ"}')],
    "a name": [{"role": "user", "name": "太郎", "content": "首都は?"}],
    "the end of text in a question": user("<|endoftext|>とは?"),
    "BOS in a question": user("<s>とは?</s>"),
}


def expected(template: PromptTemplate, messages: list[dict], separator: str) -> str:
    """The prompt, said in another way than in the template: by pairs of questions and answers."""
    texts = [(message["role"], text_of(message["content"])) for message in messages]
    above = "".join(f"{text}\n\n" for role, text in texts if role in ("system", "developer") and text)
    talk = [(role == "assistant", text) for role, text in texts if role not in ("system", "developer")]
    joined = [
        (is_answer, "\n\n".join(text for _, text in group if text))
        for is_answer, group in itertools.groupby(talk, key=lambda message: message[0])
    ]
    if not joined or joined[0][0]:
        joined.insert(0, (False, ""))
    asked = [prompt(template, text, separator) for _, text in joined[::2]]
    answers = [text for _, text in joined[1::2]]
    return above + "\n\n".join(map("".join, itertools.zip_longest(asked, answers, fillvalue="")))


def prompt(template: PromptTemplate, message: str, separator: str) -> str:
    return template.render(*message.split(separator, 1)) if separator in message else template.render(message)


def text_of(content) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part if isinstance(part, str) else part.get("text", f"[{part['type']}]") for part in content)
