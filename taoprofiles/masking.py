"""Names that hold secrets, masking of their values, and texts as they can be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence

MASK = "***"
MIN_SECRET_LENGTH = 4
"""Minimum length of a known value that is masked; a shorter one occurs in any text."""
MIN_COPY_LENGTH = 8
"""Minimum length of a secret of which a copy is recognised in a variable of another name."""

_WORDS = ("KEY", "TOKEN", "SECRET", "PASS", "PWD", "CREDENTIAL", "AUTH", "NOTIFY")
_NOT_SECRET = ("KEYPOINT",)  # TAO's pose networks: KEYPOINT_DIR is a folder
_FOLDERS = ("PWD", "OLDPWD")  # the shell's current and previous folder
_PASSWORD_OPTIONS = {"mysql": "-p", "mysqldump": "-p", "mariadb": "-p", "sshpass": "-p", "curl": "-u"}
"""Options with a password of programs; for others they are a port, or a user."""

# Not compiled here, since 'use' does not need them.
_SHELL_WORD = r"""(?:"(?:\\.|[^"\\])*+"|'[^']*+'|\\.|[^\s;&|()<>`"'\\])++"""
_QUOTED = r"""(?s)"((?:\\.|[^"\\])*+)"|'([^']*+)'|\\(.)"""
_URL_START = (
    r"((?:https?|ftps?|s3|gs|wss?|postgres(?:ql)?|mysql|rediss?|mongodb(?:\+srv)?|amqps?|ssh|sftp|git)://?|://)"
)
"""With one '/', a URL was joined to a folder as if it were a path."""
_USER = r"""[^\s/?#"'<>]+(?=@)"""
_USER_WITH_SLASH = r"""[^\s/?#"'<>@:\[]*:(?!\d{1,5}[/?#,])[^\s"'<>@]+(?:@[^\s/?#"'<>@]+)*(?=@)"""
"""The password contains a '/', '?' or '#'; a port before the path is none."""
_TYPE = r"(?i:(?:bearer|basic|token|apikey)\s+)?"
_AUTHORIZATION = rf"""((?i:authorization)["']?\s*[:=]\s*["']?{_TYPE})[^\s"',;}}]+"""
_BEARER = r"""(?i:\bbearer)\s+(?!\*)[^\s"',;}]+"""
_PARAMETER = r"""([?&#]([\w.-]++)=)[^\s&#"'<>]+"""
_SECRET_NAME = rf"(?=[\w.-]*(?i:{'|'.join(_WORDS)}))[\w.-]++"
_PAIR = rf"""((?<![\w./?&#-])({_SECRET_NAME})(?: = |=))("[^"]*+"|'[^']*+'|\{{[^}}]*+\}}|{_TYPE}[^\s;"']++)"""
_ITEM = rf"""((?<![\w./@-])([\w.-]++)["']?\s*+:\s*+)(?!//)("[^"]*+"|'[^']*+'|{_TYPE}[^,\s{{}}\[\]]*[^,\s{{}}\[\]"'])"""


def mask_command(words: Sequence[str], known: Iterable[str] = ()) -> list[str]:
    """Return a command with secrets masked: values of secret options and variables, and ``known`` values.

    ``-k`` is the encryption key of every TAO task. A word that is a command line itself, as for ``sh -c``, is masked
    by the same rules.
    """
    values = [value for value in known if len(value) >= MIN_SECRET_LENGTH]
    shown: list[str] = []
    before = password_option = ""
    for word in words:
        name, equals, _ = word.partition("=")
        is_option = before.startswith("-") and "=" not in before
        if before.lower() == "bearer" or (is_option and (is_secret_argument(before) or before == password_option)):
            masked = MASK
        elif equals and is_secret_argument(name):
            masked = f"{name}={MASK}"
        elif word.startswith(("-k", password_option or "-k")) and len(word) > 2 and not word.startswith("--"):
            masked = f"{word[:2]}{MASK}"  # argparse takes -kVALUE and -k=VALUE as well
        else:
            masked = _mask_word(word, values, is_header=before in ("-H", "--header"))
        shown.append(masked)
        password_option = _PASSWORD_OPTIONS.get(word.rpartition("/")[2], password_option)
        before = word
    return shown


def _mask_word(word: str, values: Sequence[str], *, is_header: bool) -> str:
    for value in values:
        word = word.replace(value, MASK)
    word = mask_text(word)
    if word.split() in ([], [word]):  # no blanks: it is not a command line
        return word
    import re

    header = re.match(r"((?:--header=)?([\w-]+):\s+)\S", word) if is_header or word.startswith("--header=") else None
    if header and is_secret(header[2]):
        return word if "authorization" in header[2].lower() else header[1] + MASK
    matches = list(re.finditer(_SHELL_WORD, word))
    inner = [re.sub(_QUOTED, _unquote, match[0]) for match in matches]
    if inner == [word]:  # such as a quote that stays open
        return word
    parts, position = [], 0
    for match, text, masked in zip(matches, inner, mask_command(inner, values), strict=True):
        quote = match[0][0] if match[0][0] in "\"'" and match[0][0] == match[0][-1] and text != masked else ""
        parts += [word[position : match.start()], match[0] if text == masked else f"{quote}{masked}{quote}"]
        position = match.end()
    return "".join(parts) + word[position:]


def _unquote(match: re.Match[str]) -> str:
    """Return what a shell makes of a quoted part of a word."""
    if match[1] is None:
        return match[2] if match[3] is None else match[3]
    import re

    return re.sub(r"\\([\"\\$`])", r"\1", match[1])


def mask_text(text: str) -> str:
    """Return a text with its secrets masked.

    They are passwords, tokens and secret parameters of URLs, ``Password=…``, ``Authorization: …``, ``Bearer …``, and
    ``api_key: …`` of a list in braces.
    """
    has_user = ":/" in text and "@" in text
    upper = text.upper()
    has_bearer = "BEARER " in upper
    has_pair = ("=" in text or ":" in text) and any(word in upper for word in (*_WORDS, "SIG"))
    if not (has_user or has_bearer or has_pair):
        return text
    import re  # imported here, since 'use' does not need it and must start fast

    def masked(match: re.Match[str]) -> str:
        # PWD is the current folder in a shell, and the password of an ODBC connection.
        is_folder = match[2].upper() in _FOLDERS and match[3].startswith(("/", "~", "$"))
        is_password = match[2].upper() == "PWD" and not is_folder
        is_hidden = (is_password or is_secret_argument(match[2])) and not match[3].rstrip("\"'").endswith(MASK)
        return match[1] + MASK if is_hidden else match[0]

    def masked_parameter(match: re.Match[str]) -> str:
        name = match[2].lower()
        is_hidden = name == "sig" or name.endswith("signature") or is_secret(name)
        return match[1] + MASK if is_hidden else match[0]

    if has_user:
        head, *rest = re.split(_URL_START, text)
        urls = zip(rest[::2], rest[1::2], strict=True)
        text = head + "".join(start + _mask_user(url, is_web=start.startswith("http")) for start, url in urls)
    text = re.sub(_AUTHORIZATION, rf"\1{MASK}", text)
    text = re.sub(_BEARER, lambda match: match[0].split()[0] + f" {MASK}", text) if has_bearer else text
    text = re.sub(_PARAMETER, masked_parameter, text)
    text = re.sub(_PAIR, masked, text)
    return re.sub(_ITEM, masked, text) if "://" in text or "{" in text else text


def _mask_user(url: str, *, is_web: bool) -> str:
    """Return a URL, from its user on, with the password masked, or the only name before the '@' of a web address."""
    import re

    match = re.match(_USER, url) or re.match(_USER_WITH_SLASH, url)
    if match is None or re.match(r"sha\d+:", url[match.end() + 1 :]):  # the digest of an image
        return url
    user, colon, password = match[0].partition(":")
    if password not in ("", "x-oauth-basic"):
        password = MASK
    elif is_web and user != "git":
        user = MASK
    return f"{user}{colon}{password}{url[match.end() :]}"


def is_secret_argument(key: str) -> bool:
    """Check whether an option, or a key of a spec, has a secret value; ``-k`` is the encryption key of TAO's tasks."""
    if any(character.isspace() or character in "/:?&;\"'" for character in key):
        return False  # the beginning of a URL or of a command line
    return key == "-k" or is_secret(key if key.startswith("--") else key.rpartition(".")[2])


def is_secret(name: str, value: str = "") -> bool:
    """Check whether the value of a variable must not be shown: by its name, or since the value contains a secret."""
    upper = name.upper()
    for word in _NOT_SECRET:
        upper = upper.replace(word, "")
    if upper not in _FOLDERS and any(word in upper for word in _WORDS):
        return True
    return bool(value) and mask_text(value) != value


def is_copied(name: str, value: str) -> bool:
    """Check whether a copy of a variable's value is a secret too; others may name the folder in TOKENIZER_DIR."""
    return len(value) >= MIN_COPY_LENGTH and value[0] not in "/~.$" and is_secret(name)


def mask_target(target: str) -> str:
    """Return a target of notifications as it is shown: of a URL only the scheme, since any part of it may be a secret.

    So it is if the slashes are missing. References that a profile has in place of a URL are no secret.
    """
    import re

    return re.sub(r"(?s)\A((?:\$\{[^}]*\}|[^:])*+:(?://)?+).+", rf"\1{MASK}", target)


def shorten(text: str, limit: int, *, end: int = 0) -> str:
    """Return at most ``limit`` characters: in a longer text "…" replaces what is before the last ``end`` ones."""
    return text if len(text) <= limit else f"{text[: limit - end - 3]} … {text[len(text) - end :]}".rstrip()


def text_width(text: str) -> int:
    """Return the columns that a text takes on a terminal: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    import unicodedata

    others = [c for c in text if c > "\x7f"]
    widths = (0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in others)
    return len(text) - len(others) + sum(widths)


def printable(text: str) -> str:
    """Return the text with every character escaped that a terminal would obey or show as something else."""
    if text.isprintable():
        return text
    shown = "\u00a0\u3000"  # blanks, which a terminal shows as such
    return "".join(c if c.isprintable() or c in shown else c.encode("unicode_escape").decode() for c in text)
