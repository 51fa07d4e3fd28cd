import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from snowmelt.base.native import native
from snowmelt.model.networks import native_norm
from snowmelt.model.networks.norm import ChannelsLastNorm, Norm, group_count, norm


@pytest.fixture(params=["pytorch", "c"])
def way(request, monkeypatch):
    """The two ways to compute it, one after the other."""
    if request.param == "pytorch":
        monkeypatch.setattr(native_norm, "usable", lambda *tensors: False)
    else:
        needs_c()
    return request.param


def needs_c():
    if isinstance(native(native_norm.SOURCE), str):
        pytest.skip(f"not compiled: {native(native_norm.SOURCE)}")


def inputs(modulated, added, dtype=torch.float32, shape=(3, 12, 5, 4)):
    batch, channels = shape[:2]
    rows = batch if modulated else 1
    x = (torch.randn(shape, dtype=dtype) * 2 + 3).contiguous(memory_format=torch.channels_last)
    extra = torch.randn(batch, channels, dtype=dtype) if added else None
    tensors = [x, extra, torch.randn(rows, channels, dtype=dtype), torch.randn(rows, channels, dtype=dtype)]
    return [None if tensor is None else tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("images_at_once", [1, 2, 100])
@pytest.mark.parametrize(("modulated", "added", "silu"), list(itertools.product([False, True], repeat=3)))
def test_fast_path_is_the_definition(way, monkeypatch, modulated, added, silu, images_at_once):
    monkeypatch.setattr("snowmelt.model.networks.norm.IN_CACHE", images_at_once * 12 * 5 * 4)
    tensors = inputs(modulated, added)
    present = [tensor for tensor in tensors if tensor is not None]
    found = ChannelsLastNorm.apply(*tensors, 4, 1e-5, silu)
    exact = [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = norm(*exact, 4, 1e-5, silu)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)

    weight = torch.randn_like(found)
    found_grads = torch.autograd.grad(found, present, weight)
    expected_grads = torch.autograd.grad(expected, [t for t in exact if t is not None], weight.double())
    for mine, other in zip(found_grads, expected_grads, strict=True):
        assert ((mine - other).norm() / other.norm()).item() < 1e-5
    assert found_grads[0].is_contiguous(memory_format=torch.channels_last)


def test_fast_path_survives_a_mean_far_above_the_deviation(way):
    x = (torch.randn(2, 8, 16, 16) + 1000).contiguous(memory_format=torch.channels_last)
    one, zero = torch.ones(1, 8), torch.zeros(1, 8)
    expected = norm(x.double(), None, one.double(), zero.double(), 4, 1e-5, False)
    found = ChannelsLastNorm.apply(x, None, one, zero, 4, 1e-5, False)
    assert (found - expected).abs().max().item() < 1e-3


def test_parts_are_the_whole_in_bfloat16_too(way, monkeypatch):
    tensors = [None if each is None else each.detach() for each in inputs(True, True)]
    x = tensors[0].bfloat16().requires_grad_()
    results = []
    for numbers in (1, 10**6):
        monkeypatch.setattr("snowmelt.model.networks.norm.IN_CACHE", numbers)
        y = ChannelsLastNorm.apply(x, *tensors[1:], 4, 1e-5, True)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), x)))
    assert results[0][0].dtype == torch.bfloat16
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("modulated", "added"), [(False, False), (True, True)])
def test_first_and_second_derivatives_are_numerical_ones(modulated, added):
    tensors = inputs(modulated, added, torch.float64, (2, 4, 2, 3))
    present = [tensor for tensor in tensors if tensor is not None]

    def function(*given):
        given = list(given) if added else [given[0], None, *given[1:]]
        return ChannelsLastNorm.apply(*given, 2, 1e-5, True)

    assert torch.autograd.gradcheck(function, present)
    assert torch.autograd.gradgradcheck(function, present)


@pytest.mark.parametrize("needing", [(0,), (2,), (0, 1, 3)])
def test_derivatives_of_derivatives_are_there_where_some_of_the_inputs_are_frozen(way, needing):
    """As the weights of a model are that was loaded."""
    tensors = [each.detach().requires_grad_(number in needing) for number, each in enumerate(inputs(True, True))]
    wanted = [tensors[number] for number in needing]
    out = ChannelsLastNorm.apply(*tensors, 4, 1e-5, True)
    first = torch.autograd.grad(out.square().sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), wanted)
    exact = [each.detach().double().requires_grad_(number in needing) for number, each in enumerate(tensors)]
    wanted = [exact[number] for number in needing]
    first = torch.autograd.grad(norm(*exact, 4, 1e-5, True).square().sum(), wanted, create_graph=True)
    for found, expected in zip(
        second, torch.autograd.grad(sum(each.square().sum() for each in first), wanted), strict=True
    ):
        assert ((found - expected).norm() / expected.norm()).item() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 12, 1, 1), (3, 12, 9, 7), (2, 48, 16, 16), (1, 7, 33, 20)])
def test_in_c_it_is_the_definition_for_any_shape_and_number_of_threads(dtype, shape):
    needs_c()
    x, added, weight, bias = (each.detach() for each in inputs(True, True, shape=shape))
    x, grad = x.to(dtype), torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
    results, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        given = [each.clone().requires_grad_() for each in (x, added, weight, bias)]
        out = ChannelsLastNorm.apply(*given, shape[1] // 3 if shape[1] % 3 == 0 else 1, 1e-5, True)
        results.append((out, *torch.autograd.grad(out, given, grad)))
    torch.set_num_threads(before)
    exact = [each.double().requires_grad_() for each in (x, added, weight, bias)]
    wanted = norm(*exact, shape[1] // 3 if shape[1] % 3 == 0 else 1, 1e-5, True)
    expected = (wanted, *torch.autograd.grad(wanted, exact, grad.double()))
    for one, other, right in zip(*results, expected, strict=True):
        assert torch.equal(one, other)
        tolerance = 1e-5 if one.dtype == torch.float32 else 4e-3
        assert (one - right).abs().max() <= tolerance * max(1, right.abs().max())


def test_in_c_an_image_does_not_depend_on_the_others():
    needs_c()
    x, added, weight, bias = (each.detach() for each in inputs(True, True, shape=(6, 12, 17, 9)))
    whole = ChannelsLastNorm.apply(x, added, weight, bias, 4, 1e-5, True)
    for part in (slice(0, 1), slice(2, 6)):
        alone = ChannelsLastNorm.apply(x[part], added[part], weight[part], bias[part], 4, 1e-5, True)
        assert torch.equal(alone, whole[part])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_in_c_what_is_not_finite_does_not_go_unseen(dtype, bad):
    needs_c()
    x, _, weight, bias = (each if each is None else each.detach() for each in inputs(False, False))
    x, grad = x.to(dtype), torch.ones_like(x, dtype=dtype)
    x[1, 5, 2, 3] = bad
    out = ChannelsLastNorm.apply(x.requires_grad_(), None, weight, bias, 4, 1e-5, True)
    assert not out[1, 3:6].isfinite().all()
    assert out[0].isfinite().all()
    grad[2, 0, 0, 0] = bad
    (dx,) = torch.autograd.grad(ChannelsLastNorm.apply(x, None, weight, bias, 4, 1e-5, True), x, grad)
    assert not dx[2, :3].isfinite().all()
    assert dx[0].isfinite().all()


@pytest.mark.parametrize("size", [80.0, 1e4, 1e20])
def test_in_c_the_silu_of_large_numbers_is_theirs(size):
    needs_c()
    x = torch.randn(2, 12, 5, 4).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.full((1, 12), size), torch.zeros(1, 12)
    found = ChannelsLastNorm.apply(x, None, weight, bias, 4, 1e-5, True)
    torch.testing.assert_close(found, norm(x, None, weight, bias, 4, 1e-5, True), rtol=1e-5, atol=1e-5)


def channels_last_norm():
    layer = Norm(8, 4, 1e-5)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    return layer, torch.randn(2, 8, 3, 3).contiguous(memory_format=torch.channels_last)


def test_module_is_group_norm_then_modulation_then_silu(way, fast_norm):
    layer, x = channels_last_norm()
    scale, shift, added = torch.randn(3, 2, 8).unbind(0)
    normed = F.group_norm(x, 4, layer.weight, layer.bias, 1e-5)
    torch.testing.assert_close(layer(x), F.silu(normed))
    modulated = F.silu(normed * (1 + scale[..., None, None]) + shift[..., None, None])
    for y in (x, x.contiguous()):
        torch.testing.assert_close(layer(y, scale=scale, shift=shift), modulated)
    torch.testing.assert_close(layer(x, added=added), layer(x + added[..., None, None]))
    plain = Norm(8, 4, 1e-5, silu=False)
    torch.testing.assert_close(plain(x), F.group_norm(x, 4, eps=1e-5))


def test_fast_path_is_taken_only_where_it_is_safe_and_pays(monkeypatch, fast_norm):
    monkeypatch.setattr(native_norm, "usable", lambda *tensors: False)
    layer, x = channels_last_norm()
    calls = []
    original = ChannelsLastNorm.apply
    monkeypatch.setattr(ChannelsLastNorm, "apply", lambda *args: calls.append(1) or original(*args))
    layer(x)
    assert calls == [1]
    layer(x.contiguous())
    with monkeypatch.context() as context:
        context.setattr("snowmelt.model.networks.norm.FAST_FROM", x.numel() + 1)
        layer(x)
    torch.func.jvp(layer, (x,), (x,))
    with forward_ad.dual_level():
        layer(forward_ad.make_dual(x, x))
    torch.export.export(layer, (x,))
    assert calls == [1]


def test_forward_mode_derivative_is_the_reverse_mode_one():
    layer, x = channels_last_norm()
    tangent, weight = torch.randn_like(x), torch.randn_like(x)
    _, derivative = torch.func.jvp(layer, (x,), (tangent,))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x), x, weight)
    assert (derivative * weight).sum().item() == pytest.approx((gradient * tangent).sum().item(), rel=1e-4)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_half_precision_input_is_normalised_in_float32(layout, fast_norm):
    layer, x = channels_last_norm()
    x = (x + 20).to(torch.bfloat16).contiguous(memory_format=layout)
    found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, layer(x.float()).to(torch.bfloat16), rtol=0, atol=0)
    assert layer(x, added=torch.full((2, 8), 1e-3)).dtype == torch.bfloat16


def test_half_precision_keeps_no_copy_and_has_the_gradient_of_float32(fast_norm):
    layer, x = channels_last_norm()
    half = (x + 20).to(torch.bfloat16).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = layer(half)
    assert found.grad_fn.saved_tensors[0].dtype == torch.bfloat16
    weight = torch.randn_like(x).to(torch.bfloat16)
    gradients = torch.autograd.grad(found, [half, layer.weight, layer.bias], weight)
    full = half.detach().float().contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = torch.autograd.grad(layer(full), [full, layer.weight, layer.bias], weight.float())
    assert gradients[0].dtype == torch.bfloat16
    torch.testing.assert_close(gradients[0], expected[0].to(torch.bfloat16), rtol=0, atol=0)
    for one, other in zip(gradients[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("channels", "max_groups", "min_channels", "expected"),
    [
        (128, 32, 1, 32),
        (48, 32, 1, 24),
        (7, 32, 1, 7),
        (37, 32, 1, 1),
        (64, 32, 4, 16),
        (2, 32, 4, 1),
        (100, 32, 4, 25),
    ],
)
def test_groups_divide_the_channels(channels, max_groups, min_channels, expected):
    assert group_count(channels, max_groups, min_channels) == expected
