"""SuperGLUE's tasks that are neither one text nor a pair, as pairs; and what groups of rows answer.

Wang et al. 2019 (arXiv 1905.00537, section 3.2 and appendix) let BERT score each candidate by
itself and take the best; here a candidate is a row with two classes, so that the usual classifier
serves: its margin, the logit of class 1 less that of class 0, takes the place of the score.
The functions on batches know nothing but lists and text, and `map` keeps their results.
"""

import string
from typing import Any

from minift.errors import DataError

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


def word_in_context(batch: dict[str, Any]) -> dict[str, Any]:
    """WiC: both sentences with the word marked where it is meant, the first after the word."""
    columns = ("word", "sentence1", "start1", "end1", "sentence2", "start2", "end2")
    rows = list(zip(*(batch[name] for name in columns), strict=True))
    first = [f"{word}: {marked(*one)}" for word, *one, _, _, _ in rows]
    return {"first": first, "second": [marked(*one) for _, _, _, _, *one in rows]}


def pronoun_and_noun(batch: dict[str, Any]) -> dict[str, Any]:
    """WSC: the text with _noun_ and *pronoun* marked; "pronoun: noun" as the second text."""
    columns = ("text", "span1_index", "span1_text", "span2_index", "span2_text")
    rows = list(zip(*(batch[name] for name in columns), strict=True))
    first = [marked_words(marked_words(t, i, a, "_"), j, b, "*") for t, i, a, j, b in rows]
    return {"first": first, "second": [f"{b}: {a}" for _, _, a, _, b in rows]}


def question_and_answer(batch: dict[str, Any]) -> dict[str, Any]:
    """MultiRC: the question and one answer become the second text; one row an answer, as given."""
    both = zip(batch["question"], batch["answer"], strict=True)
    return {"question_answer": [f"{question} {answer}" for question, answer in both]}


def choices(batch: dict[str, Any]) -> dict[str, Any]:
    """COPA: two rows each, "premise because" or "premise so" with one choice; class 1 is right."""
    made: dict[str, Any] = {"context": [], "choice": [], "label": [], "idx": []}
    columns = ("premise", "question", "choice1", "choice2", "label", "idx")
    for premise, question, *both, label, idx in zip(*(batch[n] for n in columns), strict=True):
        context = f"{premise.rstrip('. ')} {CONNECTIVES[question]}"
        for number, choice in enumerate(both):
            right = -1 if label == -1 else int(label == number)
            for name, value in zip(made, (context, choice, right, idx), strict=True):
                made[name].append(value)
    return made


def candidates(batch: dict[str, Any]) -> dict[str, Any]:
    """ReCoRD: a row an entity, which takes the placeholder's place; class 1 is an answer."""
    made: dict[str, Any] = {"passage": [], "filled": [], "label": [], "entity": []}
    made |= {"answers": [], "idx": []}
    columns = ("passage", "query", "entities", "answers", "idx")
    for passage, query, entities, answers, idx in zip(*(batch[n] for n in columns), strict=True):
        text = passage.replace("\n@highlight\n", " ")
        for entity in entities:
            filled = query.replace("@placeholder", entity)
            right = int(entity in answers) if answers else -1  # the test rows hide theirs
            row = (text, filled, right, entity, answers, idx)
            for name, value in zip(made, row, strict=True):
                made[name].append(value)
    return made


def prepare_with(function: Any, several: bool = False) -> Any:
    """Return a `prepare` that adds texts to a row's columns, or makes `several` rows of each.

    Those have the classes wrong and right.
    """

    def prepare(dataset: Any) -> Any:
        from minift import ClassLabel

        if not several:
            return dataset.map(function, batched=True)
        made = dataset.map(function, batched=True, remove_columns=dataset.column_names)
        return made.cast_column("label", ClassLabel(names=["wrong", "right"]))

    prepare.__doc__ = function.__doc__  # `minift tasks NAME` shows it
    return prepare


def same_columns(dataset: Any) -> Any:
    """RTE's rows under the names of AX-b's columns."""
    return renamed(dataset, {"premise": "sentence1", "hypothesis": "sentence2"})


def mnli_columns(dataset: Any) -> Any:
    """The columns as they are; those of GLUE's own files under the same names."""
    names = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"}
    return renamed(dataset, names)


def renamed(dataset: Any, names: dict[str, str]) -> Any:
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
