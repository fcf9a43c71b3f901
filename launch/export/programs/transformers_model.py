"""Run by a Python with transformers and torch: `transformers_model.py MODEL REQUEST.json ANSWER.json`.

Loads a model as its users do. The request has `ids`, the path of an array of token ids of shape [sequences, length];
`logits`, the path to which their logits go, of shape [sequences, length, vocabulary], float32; `prompts`; and
`new_tokens`. The answer has the `texts` that begin with the prompts, drawn with a seed of 0, and the model's class.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found]
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """See the module."""
    _, folder, request_path, answer_path = sys.argv
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = []
    with torch.no_grad():
        ids = torch.from_numpy(np.load(request["ids"])).long()
        np.save(request["logits"], model(ids).logits.numpy())
        for prompt in request["prompts"]:
            encoded = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            # An end-of-text token would end a text that a model of a few steps has hardly begun.
            torch.manual_seed(0)
            length = {"min_new_tokens": request["new_tokens"], "max_new_tokens": request["new_tokens"]}
            generated = model.generate(**encoded, **length, do_sample=True, top_k=20)
            texts.append(tokenizer.decode(generated[0], skip_special_tokens=True))
    answer = {"texts": texts, "model": type(model).__name__}
    Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


main()
