"""The plugin for Axolotl: the block `trl_entropy` of its YAML, docs/axolotl.md."""

from axolotl.integrations.base import BasePlugin


class EntropyPlugin(BasePlugin):
    """
    Puts the flags of the block into Axolotl's training arguments, and a trainer with entropy control in place of
    Axolotl's.

    The entry point makes every run of Axolotl load this class, so it imports no trainer and changes nothing unless
    the block is there.
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
