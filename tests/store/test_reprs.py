"""What a store's objects say of themselves: one line each, with the names that tell them apart."""

import re

from soupmix.store import Store

DIGEST = r"sha256:[0-9a-f]{12}\.\.\."


def test_every_repr_is_one_line_that_names_it(pico_store: Store) -> None:
    adapter, entry = pico_store.load("calm"), pico_store["calm"]
    factors = adapter.modules["model.layers.0.self_attn.q_proj"]
    gram = pico_store.manifest.gram
    assert repr(pico_store) == f"<Store {pico_store.folder} of 3 adapters: calm, loud, plain>"
    assert repr(pico_store.manifest) == "<Manifest of 3 adapters: calm, loud, plain>"
    assert re.fullmatch(rf"<ManifestEntry calm: calm of calm, rank 4, {DIGEST}>", repr(entry))
    assert re.fullmatch(rf"<Adapter calm of {len(adapter.modules)} modules, {DIGEST}>", repr(adapter))
    assert repr(factors) == "<Factors of rank 4, 32 -> 32, scaling 1>"
    assert repr(gram) == f"<Gram of {len(gram.modules)} modules>"
