"""A tiny model that talks: it writes `<|channel|>final<|message|>` behind `<|start|>assistant`, and then English words,
each as likely as the other, for as long as it may.

The demo's model with other weights: what was written last chooses a direction, the direction what may come next; the
layers do all their work, and what they add is next to nothing. So that different servers can be compared on the same
long replies: nobody has to script or bias the sampling, which would cost each of them something else, and the text is
text (the random model's bytes are not, which some servers take hard).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path

from harmony_plugin.core import VOCABULARY_SIZE, harmony_encoding
from harmony_plugin.demo.model import WIDTH, build_model, cache_folder

__all__ = ["build"]

RECIPE = 3  # change it when the file's contents change
NOISE = 0.02
STRENGTH = 4.0
QUIET = 0.01  # of what the layers would add


def build(template: str | None = None) -> Path:
    """The model's path; written at first use (some seconds, 61 MB in the user's cache folder).

    :param template: a chat template to put in.
    """
    import gguf
    import numpy as np

    kind = f"{RECIPE}-{hashlib.sha256(template.encode()).hexdigest()[:8]}" if template is not None else str(RECIPE)
    target = cache_folder() / f"talking-o200k-harmony-{kind}.gguf"
    if target.exists():
        return target
    print(f"writing {target}", file=sys.stderr)
    encoding = harmony_encoding()
    words = [token for token in range(1_000, 30_000) if re.fullmatch(r" [a-z]{3,9}", encoding.decode([token]))]
    assistant, channel, final, message = encoding.encode("assistant<|channel|>final<|message|>", allowed_special="all")

    random = np.random.default_rng(20_250_805)
    read = random.standard_normal((VOCABULARY_SIZE, WIDTH), dtype=np.float32) * NOISE
    write = random.standard_normal((VOCABULARY_SIZE, WIDTH), dtype=np.float32) * NOISE
    read[:, :4] = write[:, :4] = 0
    read[:, 0] = STRENGTH
    write[words, 0] = STRENGTH
    for direction, (last, following) in enumerate(((assistant, channel), (channel, final), (final, message)), 1):
        read[last, 0], read[last, direction] = 0, STRENGTH
        write[following, direction] = STRENGTH

    reader = gguf.GGUFReader(build_model())
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, suffix=".part", delete=False) as part:
        pass
    writer = gguf.GGUFWriter(part.name, "gpt-oss")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != gguf.Keys.General.ARCHITECTURE:
            of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of)
    if template is not None:
        writer.add_chat_template(template)
    ours = {"token_embd.weight": read, "output.weight": write}
    for tensor in reader.tensors:
        data = np.array(tensor.data)
        kind = tensor.tensor_type
        if tensor.name in ours:
            # What is read for each step is most of a model's work, and the same for one reply as for many.
            kind = gguf.GGMLQuantizationType.F16
            data = ours[tensor.name].astype(np.float16)
        elif "attn_output" in tensor.name or "ffn_down_exps" in tensor.name:
            data *= QUIET
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part.name, target)
    return target
