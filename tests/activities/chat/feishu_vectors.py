"""Writes feishu_vectors.json: signatures of Feishu's custom bots, made by the class Lark of onepush in place of Bellwire.

    python -m venv /tmp/onepush && /tmp/onepush/bin/pip install onepush==1.10.0
    /tmp/onepush/bin/python tests/activities/chat/feishu_vectors.py

It is not among the libraries for tests because of what it needs. Feishu itself publishes code, and no signature.
"""

import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

SECRETS = (
    "SEC2",
    "",
    "aVeryLongSecret" * 20,
    "with space +/=~*",
    "密钥",
    "🔑 é",
    "line\nbreak",
    'q"uote',
)
TIMES = (0, 1, 1_700_000_000, 1_764_442_800, 4_102_444_800)


def main() -> None:
    lark: Any = import_module("onepush.providers.lark").Lark()
    vectors = [
        {"secret": secret, "timestamp": timestamp, "sign": lark.gen_sign(str(timestamp), secret)}
        for secret in SECRETS
        for timestamp in TIMES
    ]
    document = {"made_by": f"onepush {version('onepush')}", "vectors": vectors}
    Path(__file__).with_suffix(".json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
