"""`minift eval`: the loss and metrics of a model that was trained before."""

import json
import sys
from argparse import ArgumentParser, Namespace

from minift.errors import ConfigError, DataError
from minift.training.arguments import TrainingArguments
from minift_commands.options import add_data_options


class Eval:
    """The command, as `minift_commands` wants it."""

    help = "loss and metrics of a trained model on labelled rows"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.allow_abbrev = False
        text = "run folder, or any folder with a trained classifier"
        parser.add_argument("model", help=text)
        add_data_options(parser)
        parser.add_argument("--split", help="which rows (default: validation)")
        parser.add_argument("--device", default="auto")
        parser.add_argument("--batch-size", type=int, default=32)

    @staticmethod
    def run(args: Namespace) -> int:
        from minift.models.auto import AutoConfig, AutoModelForSequenceClassification
        from minift.tokenizer import AutoTokenizer
        from minift.training.trainer import Trainer
        from minift_commands.inputs import Inputs, run_record, split_words

        known = run_record(args.model)
        if not (args.dataset or args.train_file or args.validation_file):
            vars(args).update(known.get("source", {}))  # the data that it was trained with
        config = AutoConfig.from_pretrained(args.model)
        names = list(config.id2label.values())
        known.setdefault("names", names)
        if args.label_names and split_words(args.label_names) != names:
            raise ConfigError(
                "--label-names are not the names of the model's classes",
                got=args.label_names,
                expected=",".join(names),
            )
        inputs = Inputs.from_args(args, known)
        split = args.split or (
            "validation" if "validation" in inputs.data else next(iter(inputs.data))
        )
        print(f"scoring the split {split}", file=sys.stderr)
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        trainer = Trainer(
            AutoModelForSequenceClassification.from_pretrained(args.model),
            TrainingArguments(
                args.model, device=args.device, per_device_eval_batch_size=args.batch_size,
                precision="fp32", disable_tqdm=True,
            ),
            processing_class=tokenizer,
            compute_metrics=inputs.metrics,
        )  # fmt: skip
        metrics = trainer.predict(inputs.tokenized(tokenizer, split), split).metrics
        if f"{split}_loss" not in metrics:
            raise DataError(f"the split {split!r} has no labels to compare with")
        print(json.dumps(metrics, indent=2))
        return 0
