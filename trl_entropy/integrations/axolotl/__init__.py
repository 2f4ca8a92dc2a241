"""The plugin for Axolotl: the block `trl_entropy` in its YAML; see docs/axolotl.md."""

from axolotl.integrations.base import BasePlugin


class EntropyPlugin(BasePlugin):
    """
    Add the block's flags to Axolotl's training arguments, and replace Axolotl's trainer by one with entropy control.

    The entry point makes every Axolotl run load this class, so it does not import a trainer, and changes nothing
    without the block.
    """

    acts = False

    def register(self, cfg):
        self.acts = "trl_entropy" in cfg
        if self.acts:
            cfg["trl_entropy"] = cfg["trl_entropy"] or {}
            trl = cfg.get("trl") or {}
            kind = "AsyncGRPO" if trl.get("async_prefetch") or trl.get("use_data_producer") else "GRPO"
            cfg["trainer_cls"] = cfg.get("trainer_cls") or f"{__name__}.trainers.EntropyAxolotl{kind}Trainer"

    def get_input_args(self):
        return f"{__name__}.args.EntropyArgs" if self.acts else None

    def get_training_args_mixin(self):
        return f"{__name__}.args.AxolotlFlags" if self.acts else None

    def get_training_args(self, cfg):
        return cfg["trl_entropy"].to_dict() if self.acts else None
