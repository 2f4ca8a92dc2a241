"""The states before the LM head, and a temperature for each row by them."""

import threading

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, PhiConfig, PhiForCausalLM

from trl_entropy._seam.vocabulary import HiddenStates, RowTemperatures


SMALL = {
    **{"vocab_size": 22, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "pad_token_id": 0},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": 1},
}
IDS = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14]])
VALUES = torch.tensor([0.5, 1.0, 1.25, 2.0])


@pytest.fixture
def model(model_dir) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(model_dir).eval()


def logits(model, rows: slice = slice(None)) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS[rows]).logits


def assert_divided(actual: torch.Tensor, plain: torch.Tensor, values: torch.Tensor) -> None:
    # the states are divided, not the logits: float32 rounds in another place
    torch.testing.assert_close(actual, plain / values.view(-1, 1, 1), rtol=1e-5, atol=1e-6)


def test_logits_of_each_row_are_divided_by_its_number(model):
    plain, temperatures = logits(model), RowTemperatures([model])
    with temperatures.over(VALUES):
        assert_divided(logits(model), plain, VALUES)


def test_nothing_is_divided_outside(model):
    plain, temperatures = logits(model), RowTemperatures([model])
    assert torch.equal(logits(model), plain)
    with temperatures.over(VALUES):
        pass
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_chunks_go_over_the_rows_in_order_and_again_from_the_first(model, size):
    plain, temperatures = logits(model), RowTemperatures([model])
    with temperatures.over(VALUES):
        for _ in range(2):
            chunks = [logits(model, slice(start, start + size)) for start in range(0, 4, size)]
            assert_divided(torch.cat(chunks), plain, VALUES)


def test_rows_within_others_are_rows_of_their_own(model):
    plain, temperatures = logits(model), RowTemperatures([model])
    with temperatures.over(VALUES):
        first = logits(model, slice(0, 2))
        with temperatures.over(torch.tensor([3.0])):
            assert_divided(logits(model, slice(0, 1)), plain[:1], torch.tensor([3.0]))
        second = logits(model, slice(2, 4))
    assert_divided(torch.cat([first, second]), plain, VALUES)


def test_an_error_within_leaves_nothing_divided(model):
    plain, temperatures = logits(model), RowTemperatures([model])
    with pytest.raises(KeyError), temperatures.over(VALUES):
        raise KeyError
    assert torch.equal(logits(model), plain)


def test_several_models_take_turns(model, model_dir):
    other = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    plain, temperatures = logits(model), RowTemperatures([model, other])
    with temperatures.over(VALUES):
        assert_divided(logits(model), plain, VALUES)
        assert_divided(logits(other), plain, VALUES)


def test_gradient_goes_through(model):
    temperatures = RowTemperatures([model])
    with temperatures.over(VALUES):
        model(input_ids=IDS).logits.log_softmax(-1)[..., 5].sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    divided = model(input_ids=IDS).logits / VALUES.view(-1, 1, 1)
    divided.log_softmax(-1)[..., 5].sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_generation_samples_each_row_at_its_temperature(model):
    # at a temperature near 0 a row is greedy, whatever the others are
    temperatures, settings = RowTemperatures([model]), {"max_new_tokens": 6, "do_sample": True, "pad_token_id": 0}
    mask = torch.ones_like(IDS)
    greedy = model.generate(IDS, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
    differ = set()
    for seed in range(4):
        torch.manual_seed(seed)
        with temperatures.over(torch.tensor([1e-4, 1.0, 1.0, 1e-4])):
            sampled = model.generate(IDS, attention_mask=mask, **settings)
        width = max(greedy.shape[1], sampled.shape[1])
        rows = [nn.functional.pad(ids, (0, width - ids.shape[1])) for ids in (greedy, sampled)]
        differ |= {row for row in range(4) if not torch.equal(rows[0][row], rows[1][row])}
    assert differ == {1, 2}


def test_model_whose_logits_are_capped_is_refused():
    model = Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=30.0))
    with pytest.raises(ValueError, match="a temperature per prompt does not work with logits that are changed after"):
        RowTemperatures([model])


def test_model_whose_head_has_a_bias_is_refused():
    settings = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
    with pytest.raises(ValueError, match="a temperature per prompt does not work with an LM head that has a bias"):
        RowTemperatures([PhiForCausalLM(PhiConfig(**settings))])


def test_states_are_not_those_of_another_thread(model):
    with HiddenStates(model) as hidden:
        logits(model)
        other = threading.Thread(target=logits, args=(model, slice(2)))
        other.start()
        other.join()
    assert len(hidden.states) == len(IDS)
