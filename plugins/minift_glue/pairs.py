"""SuperGLUE's tasks that are neither one text nor a pair, as pairs; and what groups of rows answer.

Wang et al. 2019 (arXiv 1905.00537, section 3.2 and appendix) let BERT score each candidate by
itself and take the best; here a candidate is a row with two classes, so that the usual classifier
serves: its margin, the logit of class 1 less that of class 0, takes the place of the score.
The functions on rows know nothing but lists and text, and `map` keeps their results.
"""

import string
from collections.abc import Callable, Iterator
from typing import Any

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel
from minift.errors import DataError

Row = dict[str, Any]
CONNECTIVES = {"cause": "because", "effect": "so"}


def marked(text: str, start: int, end: int, mark: str = "*") -> str:
    return f"{text[:start]}{mark}{text[start:end]}{mark}{text[end:]}"


def marked_words(text: str, index: int, span: str, mark: str) -> str:
    """Put the span's words between marks: those at word `index`, or the nearest that are the span.

    One index of SuperGLUE's validation rows is another word's. Where the text does not have the
    span as such (two test rows), as many words from `index` on are marked.

    Raises:
        DataError: the text has no such words.
    """
    words, target = text.split(), plain(span.split())
    n = len(target)
    places = [i for i in range(len(words) - n + 1) if plain(words[i : i + n]) == target]
    start = min(places, key=lambda i: abs(i - index), default=index)
    if not target or not 0 <= start <= len(words) - n:
        raise DataError(f"there is no {span!r} at word {index} of the text", got=text)
    words[start] = mark + words[start]
    words[start + n - 1] += mark
    return " ".join(words)


def plain(words: list[str]) -> list[str]:
    """Strip words of what stands around them: marks, a sentence's punctuation, and the 's."""
    return [word.strip(string.punctuation).casefold().removesuffix("'s") for word in words]


def word_in_context(row: Row) -> Row:
    """WiC: both sentences with the word marked where it is meant, the first after the word."""
    first = marked(row["sentence1"], row["start1"], row["end1"])
    second = marked(row["sentence2"], row["start2"], row["end2"])
    return {"first": f"{row['word']}: {first}", "second": second}


def pronoun_and_noun(row: Row) -> Row:
    """WSC: the text with _noun_ and *pronoun* marked; "pronoun: noun" as the second text."""
    noun, pronoun = row["span1_text"], row["span2_text"]
    first = marked_words(row["text"], row["span1_index"], noun, "_")
    first = marked_words(first, row["span2_index"], pronoun, "*")
    return {"first": first, "second": f"{pronoun}: {noun}"}


def question_and_answer(row: Row) -> Row:
    """MultiRC: the question and one answer become the second text; one row an answer, as given."""
    return {"question_answer": f"{row['question']} {row['answer']}"}


def choices(row: Row) -> Iterator[Row]:
    """COPA: two rows each, "premise because" or "premise so" with one choice; class 1 is right."""
    context = f"{row['premise'].rstrip('. ')} {CONNECTIVES[row['question']]}"
    for number, choice in enumerate([row["choice1"], row["choice2"]]):
        right = -1 if row["label"] == -1 else int(row["label"] == number)
        yield {"context": context, "choice": choice, "label": right, "idx": row["idx"]}


def candidates(row: Row) -> Iterator[Row]:
    """ReCoRD: a row an entity, which takes the placeholder's place; class 1 is an answer."""
    passage = row["passage"].replace("\n@highlight\n", " ")
    for entity in row["entities"]:
        filled = row["query"].replace("@placeholder", entity)
        right = int(entity in row["answers"]) if row["answers"] else -1  # test rows hide theirs
        made = {"passage": passage, "filled": filled, "label": right, "entity": entity}
        yield {**made, "answers": row["answers"], "idx": row["idx"]}


def with_texts(function: Callable[[Row], Row]) -> Callable[[Dataset], Dataset]:
    """Return a `prepare` that adds texts to each row's columns."""

    def prepare(dataset: Dataset) -> Dataset:
        return dataset.map(function)

    prepare.__doc__ = function.__doc__  # `minift tasks NAME` shows it
    return prepare


def with_rows(function: Callable[[Row], Iterator[Row]]) -> Callable[[Dataset], Dataset]:
    """Return a `prepare` that makes several rows of each, of the classes wrong and right."""

    def batch_of_rows(batch: dict[str, Any]) -> dict[str, list[Any]]:
        rows = (dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True))
        made = [new for row in rows for new in function(row)]
        return {name: [new[name] for new in made] for name in made[0]}

    def prepare(dataset: Dataset) -> Dataset:
        names = dataset.column_names
        made = dataset.map(batch_of_rows, batched=True, remove_columns=names)
        return made.cast_column("label", ClassLabel(names=["wrong", "right"]))

    prepare.__doc__ = function.__doc__
    return prepare


def same_columns(dataset: Dataset) -> Dataset:
    """RTE's rows under the names of AX-b's columns."""
    return renamed(dataset, {"premise": "sentence1", "hypothesis": "sentence2"})


def mnli_columns(dataset: Dataset) -> Dataset:
    """The columns as they are; those of GLUE's own files under the same names."""
    names = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"}
    return renamed(dataset, names)


def renamed(dataset: Dataset, names: dict[str, str]) -> Dataset:
    """Return the dataset with other names for those columns that it has."""
    return dataset.rename_columns({n: names[n] for n in dataset.column_names if n in names})


# ------------------------------------------------ groups of rows as predictions and references


def best_rows(keys: Any, logits: Any) -> list[int]:
    """Return the row with the largest margin for each key, in order; the first of equal ones."""
    margins = logits[:, 1] - logits[:, 0]
    best: dict[Any, int] = {}
    for row, key in enumerate(keys):
        if key not in best or margins[row] > margins[best[key]]:
            best[key] = row
    return list(best.values())


def chosen(prediction: Any) -> tuple[Any, Any]:
    """COPA: a question counts if the choice with the larger margin is the right one."""
    best = best_rows(prediction.rows["idx"], prediction.predictions)
    return [1] * len(best), prediction.label_ids[best]


def answered(prediction: Any) -> tuple[Any, Any]:
    """MultiRC: each answer is judged by itself, then counted by question."""
    pairs = zip(prediction.rows["idx"], prediction.predictions.argmax(-1).tolist(), strict=True)
    predictions = [{"idx": idx, "prediction": answer} for idx, answer in pairs]
    return predictions, prediction.label_ids.tolist()


def filled_in(prediction: Any) -> tuple[Any, Any]:
    """ReCoRD: the entity with the largest margin is the answer to a query."""
    rows = prediction.rows
    keys = [(idx["passage"], idx["query"]) for idx in rows["idx"]]
    best = rows.select(best_rows(keys, prediction.predictions))
    predictions = [{"idx": row["idx"], "prediction_text": row["entity"]} for row in best]
    return predictions, [{"idx": row["idx"], "answers": row["answers"]} for row in best]
