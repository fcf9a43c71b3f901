"""Run by the trainer's Python: `maxtext_logits.py IDS.npy LOGITS.npy CONFIG KEY=VALUE…`.

Writes the answer of MaxText's model to token ids, of shape [sequences, length]: logits of shape [sequences, length,
vocabulary], float32.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from maxtext.configs import pyconfig
from maxtext.utils.model_creation_utils import from_pretrained


def main() -> None:
    """See the module."""
    _, ids_path, logits_path, *arguments = sys.argv
    ids = np.load(ids_path)
    # With the mesh that it made, which is the model's own too.
    model, _ = from_pretrained(pyconfig.initialize(["", *arguments]))
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    with jax.set_mesh(model.mesh):
        logits = model(
            jnp.asarray(ids),
            jnp.asarray(positions),
            decoder_segment_ids=jnp.ones(ids.shape, jnp.int32),
            enable_dropout=False,
        )
    np.save(logits_path, np.asarray(logits, np.float32))


main()
