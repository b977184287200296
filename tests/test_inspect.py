"""`minift inspect`: the record against plain torch, and the two ways in which it is shown."""

import argparse
import json
import math
import re
import shutil
import subprocess

import pytest
import torch
from minift_inspect import command
from minift_inspect.attribution import integrated_gradients
from minift_inspect.inspection import settings_of
from tiny import load, make_model, make_rows, write_csv

import minift
from minift import AdamW, AutoTokenizer, Dataset, cli
from minift.errors import ArgumentError
from minift.optim import parameter_groups

EVIL = "</script><b id=evil onclick=x>w1</b> <!-- &amp; \u2028"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("inspect") / "model")


@pytest.fixture(scope="module")
def data():
    rows = make_rows(12)
    rows["sentence1"][3] = EVIL
    return Dataset.from_dict(rows)


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def found(folder, model, data):
    return minift.inspect(model, data, 3, tokenizer=AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def batch(folder, data):
    tokenizer, rows = AutoTokenizer.from_pretrained(folder), data.select(range(3, 11))
    texts = rows["sentence1"][:], rows["sentence2"][:]
    return dict(tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")), rows


# --------------------------------------------------------------------------------------- the record


def test_it_is_plain(found):
    assert json.loads(json.dumps(found.facts)) == found.facts


def test_tokens_and_padding(found, batch):
    facts, (inputs, rows) = found.facts, batch
    mask = inputs["attention_mask"]
    assert facts["first"] == 3 and facts["focus"] == 0
    assert facts["raw"][0]["sentence1"] == EVIL
    assert [[token["id"] for token in row] for row in facts["tokens"]] == inputs[
        "input_ids"
    ].tolist()
    assert [[token["mask"] for token in row] for row in facts["tokens"]] == mask.tolist()
    assert facts["tokens"][0][0] == {
        "token": "[CLS]",
        "id": 2,
        "type": 0,
        "mask": 1,
        "special": True,
    }
    padding = facts["padding"]
    assert padding["tokens"] == int(mask.sum()) and padding["cells"] == mask.numel()
    assert padding["saved"] == pytest.approx(1 - float(mask.float().mean()))
    assert sum(block["rows"] for block in padding["blocks"]) == len(rows)


def test_hidden_states_attention_and_losses_are_the_models(found, model, batch):
    facts, (inputs, rows) = found.facts, batch
    n = int(inputs["attention_mask"][0].sum())
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True, output_attentions=True,
                    labels=torch.tensor(rows["label"][:]))  # fmt: skip
    for got, want in zip(facts["norms"], out.hidden_states, strict=True):
        assert got == pytest.approx(want[0, :n].norm(dim=-1).tolist(), abs=1e-4)
    for got, want in zip(facts["attention"], out.attentions, strict=True):
        torch.testing.assert_close(torch.tensor(got), want[0, :, :n, :n], rtol=0, atol=1e-4)
    losses = [row["loss"] for row in facts["rows"]]
    assert sum(losses) / len(losses) == pytest.approx(float(out.loss), abs=1e-4)
    assert facts["update"]["loss"] == pytest.approx(float(out.loss), rel=1e-5)
    for row, logits, label in zip(facts["rows"], out.logits, rows["label"][:], strict=True):
        assert row["label"] == label and row["prediction"] == int(logits.argmax())
        assert row["scores"] == pytest.approx(logits.softmax(-1).tolist(), abs=1e-4)


def test_the_update_is_that_of_adamw(found, folder, batch):
    model, (inputs, rows) = load(folder), batch
    model(**inputs, labels=torch.tensor(rows["label"][:])).loss.backward()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    AdamW(parameter_groups(model, 0.0), lr=5e-5).step()
    update = found.facts["update"]
    assert update["norm"] == pytest.approx(norm, rel=1e-4)
    parts = {part["name"]: part for part in update["layers"]}
    assert list(parts) == ["embeddings", "layer 1", "layer 2", "head"]
    prefix = {"embeddings": "bert.embeddings.", "layer 2": "bert.encoder.layer.1."}
    for part, start in prefix.items():
        names = [n for n in before if n.startswith(start)]
        moved = {n: (dict(model.named_parameters())[n] - before[n]).square().sum() for n in names}
        assert parts[part]["update"] == pytest.approx(
            float(sum(moved.values()).detach()) ** 0.5, rel=1e-3
        )
        weights = sum(before[n].square().sum() for n in names)
        assert parts[part]["weight"] == pytest.approx(float(weights) ** 0.5, rel=1e-5)
        assert parts[part]["share"] == pytest.approx(parts[part]["update"] / parts[part]["weight"])
    whole = math.sqrt(sum(part["gradient"] ** 2 for part in parts.values()))
    assert whole == pytest.approx(update["norm"], rel=1e-4)


def test_pulls_add_up_to_the_difference_of_the_logits(found, model, batch):
    pulls, (inputs, _) = found.facts["pulls"], batch
    assert pulls["error"] < 1e-3 and pulls["pulls"][0] == 0, "[CLS] is kept, and pulls nothing"
    assert sum(pulls["pulls"]) == pytest.approx(pulls["logit"] - pulls["baseline"], abs=1e-3)
    with torch.no_grad():
        assert pulls["logit"] == pytest.approx(float(model(**inputs).logits[0].max()), abs=1e-5)


def test_padding_pulls_nothing_and_changes_no_pull(model, batch):
    inputs, n = batch[0], int(batch[0]["attention_mask"][1].sum())
    options = {"target": 0, "pad_id": 0, "special": {2, 3}, "steps": 8}
    padded = integrated_gradients(model, {k: v[1:2] for k, v in inputs.items()}, **options)["pulls"]
    alone = integrated_gradients(model, {k: v[1:2, :n] for k, v in inputs.items()}, **options)[
        "pulls"
    ]
    assert n < inputs["input_ids"].shape[1] and not any(padded[n:])
    assert padded[:n] == pytest.approx(alone, abs=1e-5)


def test_nothing_is_left_on_the_model(folder, data):
    model, tokenizer = load(folder).train(), AutoTokenizer.from_pretrained(folder)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    minift.inspect(model, data, tokenizer=tokenizer)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not model.bert.embeddings._forward_hooks


def test_rows_without_labels_and_numbers_to_predict(folder, data, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    without = minift.inspect(load(folder), data.remove_columns("label"), tokenizer=tokenizer)
    assert without.facts["update"] is None and "loss" not in without.facts["rows"][0]
    assert "Update" not in str(without)
    scores = data.remove_columns("label").add_column("label", [i / 7 for i in range(len(data))])
    number = load(folder, num_labels=1, problem_type="regression")
    found = minift.inspect(number, scores, 11, tokenizer=tokenizer, batch_size=4)
    assert found.facts["first"] == 8 and found.facts["focus"] == 3
    row = found.facts["rows"][3]
    assert row["loss"] == pytest.approx((row["prediction"] - 11 / 7) ** 2, abs=1e-3)


def test_errors(folder, data):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ArgumentError, match="no such row"):
        minift.inspect(load(folder), data, 12, tokenizer=tokenizer)
    with pytest.raises(ArgumentError, match="tokenizer"):
        minift.inspect(load(folder), data)


# ---------------------------------------------------------------------------------- as it is shown


def test_as_text(found):
    text = str(found)
    for word in (
        "[CLS]",
        "BertForSequenceClassification",
        "layer 2",
        "head 1",
        "Padding",
        "Update",
    ):
        assert word in text
    assert EVIL.split(">", 1)[0] in text and max(map(len, text.splitlines())) <= 110


def test_the_page_is_one_file_and_texts_stay_data(found, tmp_path):
    page = found.save(tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!#|data:,)', page), "nothing is loaded from elsewhere"
    assert "<b id=evil" not in page and page.count("</script>") == 2
    data = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.S)
    assert json.loads(data[1]) == found.facts
    assert found._repr_html_().startswith("<iframe srcdoc=")


@pytest.mark.slow
def test_in_a_browser(found, tmp_path):
    """What is seen is what was found; no error, and a text with markup is a text."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("there is no Chromium: apt-get install chromium")
    path = found.save(tmp_path / "page.html")
    words = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    done = subprocess.run(
        [chromium, *words, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    dom = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.S)
    assert '<h1 id="title">Row 3 of' in dom and "<b id=" not in dom and "&lt;b id=evil" in dom
    facts, n = found.facts, len(found.facts["positions"])
    table = dom[dom.index('id="map"') : dom.index("</table>", dom.index('id="map"'))]
    assert (
        table.count("<td") == n * n
        and f"looks at [CLS]: {facts['attention'][-1][0][0][0]:.4f}" in table
    )
    for row in facts["rows"]:
        assert f"{row['loss']:.3f}" in dom
    for part in facts["update"]["layers"]:
        assert f"<td>{part['name']}</td>" in dom


@pytest.mark.slow
def test_the_command_on_a_run_and_on_a_file(folder, tmp_path, capsys):
    write_csv(tmp_path / "train.csv", make_rows(24))
    write_csv(tmp_path / "dev.csv", make_rows(10, 1))
    run = tmp_path / "run"
    words = [
        "train",
        "--model",
        folder,
        "--train-file",
        tmp_path / "train.csv",
        "--output-dir",
        run,
    ]
    words += ["--validation-file", tmp_path / "dev.csv", "--max-steps", 4, "--warmup-steps", 2]
    words += ["--learning-rate", 0.001, "--device", "cpu", "--max-grad-norm", 0.01]
    assert cli.main([str(word) for word in words]) == 0
    settings = settings_of(str(run))
    assert settings["learning_rate"] == 1e-3 and settings["max_grad_norm"] == 0.01
    assert settings["warmup_steps"] == 2 and settings["max_steps"] == 4
    parser = argparse.ArgumentParser()
    command.configure(parser)
    for more in ([], [tmp_path / "dev.csv"], ["--split", "train", "--row", 20]):
        page = tmp_path / "page.html"
        capsys.readouterr()
        args = parser.parse_args([str(run), *map(str, more), "--output", str(page)])
        assert command.run(args) == 0 and page.is_file()
        said = capsys.readouterr().out
        assert "rate 0.001" in said and f"Row {20 if '--row' in more else 0}" in said
