"""Which operations cost how many FLOPs: formulas by operation, and the explicit list of free ones.

`flops.FlopCounter` reads both. An operation in neither raises there, so that nothing is counted as 0 by oversight.

Convention, the same on every device and in plan and run:

- a matrix product of (m, k) by (k, n) is 2mnk;
- attention of N queries on M keys is two dense matrix products per head, 2·N·M·(d_key + d_value), causal or not, masked
  or not; its backward pass is exactly twice that (dV, dP, dQ, dK: four products of the same size), as the decomposed
  form computes it. What a fused kernel computes again of the scores in its backward pass is recomputation;
- grouped-query attention costs what its query heads cost;
- views, copies, element-wise operations, reductions, norms, softmax, embedding, indexing, sorting, random numbers and
  communication are free: their share is below a hundredth of a transformer's products, and they are bound by memory.

A formula takes an operation's arguments with every tensor replaced by its shape, and `out_shape`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import conv_flop_count

from stackwise_ray.kernels.flop_formulas import FLOP_FORMULAS as RESOLVENT_FORMULAS
from stackwise_ray.kernels.flop_formulas import Shape

Formula = Callable[..., int]
aten = torch.ops.aten


def mm(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """(m, k) @ (k, n): 2mnk.

    >>> mm((2, 3), (3, 5))
    60
    """
    return 2 * a[0] * a[1] * b[1]


def bmm(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """(batch, m, k) @ (batch, k, n)."""
    return 2 * prod(a) * b[2]


def _plus(product: Formula) -> Formula:
    """`product` of the second and third argument; adding the first is free (a bias)."""

    def formula(_: Shape, a: Shape, b: Shape, *rest: Any, **named: Any) -> int:
        return product(a, b, *rest, **named)

    return formula


def _dot(a: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _conv(
    x: Shape,
    weight: Shape,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *_: Any,
    out_shape: Shape,
    **__: Any,
) -> int:
    return int(conv_flop_count(list(x), list(weight), list(out_shape), transposed=transposed))


def _conv_backward(
    grad: Shape,
    x: Shape,
    weight: Shape,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: Any,
    wanted: Sequence[bool],
    *_: Any,
    **__: Any,
) -> int:
    """The gradients of input and weight cost one forward each."""
    once = _conv(x, weight, bias, stride, padding, dilation, transposed, out_shape=grad)
    return once * sum(wanted[:2])


def attention(query: Shape, key: Shape, value: Shape, *_: Any, scale: float | None = None, **__: Any) -> int:
    """Fused attention on (batch, heads, tokens, width): 2·N·M·(d_key + d_value) a query head.

    CUDA's flash attention pads the width of a head to a multiple of 8 before the operation is seen; its scale,
    which is then always passed on as 1/√width, tells the true one.

    >>> attention((1, 2, 8, 4), (1, 2, 8, 4), (1, 2, 8, 4)) == 4 * 2 * 8 * 8 * 4
    True
    """
    batch, heads, n_queries, d_key = query
    n_keys, d_value = value[-2:]
    width = round(scale**-2) if scale else d_key
    if d_key == d_value and d_key % 8 == 0 and d_key - 8 < width < d_key:
        d_key = d_value = width
    return 2 * batch * heads * n_queries * n_keys * (d_key + d_value)


def attention_backward(
    _: Shape, query: Shape, key: Shape, value: Shape, *__: Any, scale: float | None = None, **___: Any
) -> int:
    """The gradients of fused attention: twice its forward pass."""
    return 2 * attention(query, key, value, scale=scale)


def attention_recomputed(
    _: Shape, query: Shape, key: Shape, value: Shape, *__: Any, scale: float | None = None, **___: Any
) -> int:
    """What the backward pass of fused attention computes once more: the scores QKᵀ, half of a forward pass."""
    return attention(query, key, value, scale=scale) // 2


_FUSED_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)

FORMULAS: dict[Any, Formula] = {
    aten.mm: mm,
    aten.addmm: _plus(mm),
    aten._addmm_activation: _plus(mm),
    aten.bmm: bmm,
    aten.baddbmm: _plus(bmm),
    aten.addbmm: _plus(bmm),
    aten.mv: _dot,
    aten.addmv: lambda _, a, *__, **___: _dot(a),
    aten.dot: _dot,
    aten.vdot: _dot,
    aten.convolution: _conv,
    aten.convolution_overrideable: _conv,
    aten.convolution_backward: _conv_backward,
    **{getattr(aten, name): attention for name in _FUSED_ATTENTION},
    **{getattr(aten, f"{name}_backward"): attention_backward for name in _FUSED_ATTENTION},
    **RESOLVENT_FORMULAS,
}
"""Operation packet -> FLOPs of one call."""

RECOMPUTED: dict[Any, Formula] = {getattr(aten, f"{name}_backward"): attention_recomputed for name in _FUSED_ATTENTION}
"""Operation packet -> FLOPs that one call computes once more; reported apart, in no budget."""

_VIEWS_AND_COPIES = """
    _reshape_alias _unsafe_view alias as_strided chunk clone contiguous copy detach diagonal expand expand_as
    flatten flip is_pinned lift_fresh lift_fresh_copy lift movedim narrow permute pin_memory _pin_memory ravel
    repeat repeat_interleave reshape resize resize_as roll select slice split split_with_sizes split_with_sizes_copy
    squeeze swapaxes t tile transpose unbind unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes
    unsqueeze view view_as view_as_complex view_as_real _conj _neg_view _conj_physical conj_physical resolve_conj
    resolve_neg real imag _to_copy to cat stack hstack vstack constant_pad_nd pad tril triu diag_embed set set_data
    is_same_size select_backward slice_backward unfold_backward value_selecting_reduction_backward select_scatter
    slice_scatter diagonal_scatter as_strided_scatter diagonal_backward expand_copy _foreach_copy record_stream
    _has_compatible_shallow_copy_type _local_scalar_dense item is_nonzero equal _assert_async _assert_scalar
"""
_CREATION = """
    arange empty empty_like empty_strided eye fill full full_like linspace new_empty new_empty_strided new_full
    new_ones new_zeros ones ones_like scalar_tensor zero zeros zeros_like _efficientzerotensor
    bernoulli exponential multinomial native_dropout native_dropout_backward normal normal_functional rand rand_like
    randint randint_like randn randn_like random randperm uniform dropout
"""
_ELEMENTWISE = """
    abs absolute acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min complex copysign cos
    cosh deg2rad digamma div elu elu_backward eq erf erfc erfinv exp exp2 expm1 floor floor_divide fmax fmin fmod frac
    ge gelu gelu_backward glu glu_backward gt hardsigmoid hardswish hardtanh heaviside hypot isfinite isinf isnan
    isneginf isposinf le leaky_relu leaky_relu_backward lerp lgamma log log10 log1p log2 log_sigmoid_backward
    log_sigmoid_forward logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt masked_fill
    maximum minimum mish mish_backward mul multiply nan_to_num ne neg nextafter polar polygamma positive pow prelu
    rad2deg reciprocal relu relu6 remainder round rsqrt rsub sgn sigmoid sigmoid_backward sign signbit silu
    silu_backward sin sinc sinh softplus softplus_backward softshrink sqrt square sub tan tanh tanh_backward
    threshold threshold_backward trunc where xlogy
"""
_REDUCTIONS_NORMS_LOSSES = """
    all allclose amax amin aminmax any argmax argmin bincount count_nonzero cummax cummin cumprod cumsum diff histc
    linalg_vector_norm logcumsumexp logsumexp max mean median min nanmean nansum norm prod std std_mean sum trace var
    var_mean
    native_layer_norm native_layer_norm_backward layer_norm _fused_rms_norm _fused_rms_norm_backward rms_norm
    native_group_norm native_group_norm_backward native_batch_norm native_batch_norm_backward
    _log_softmax _log_softmax_backward_data _safe_softmax _softmax _softmax_backward_data
    binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits mse_loss mse_loss_backward
    nll_loss_backward nll_loss_forward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward kl_div
"""
_INDEXING_AND_SORTING = """
    _embedding_bag _unsafe_index _unsafe_index_put argsort bucketize embedding embedding_dense_backward
    embedding_backward gather index index_add index_copy index_fill index_put _index_put_impl index_select isin kthvalue
    masked_scatter masked_select nonzero put scatter scatter_add scatter_reduce searchsorted sort take
    take_along_dim topk unique_consecutive unique_dim _unique2 one_hot
"""
_OPTIMIZERS_AND_SCALERS = """
    _amp_foreach_non_finite_check_and_unscale _amp_update_scale _foreach_abs _foreach_add _foreach_addcdiv
    _foreach_addcmul _foreach_clamp_max _foreach_clamp_min _foreach_div _foreach_exp _foreach_lerp _foreach_max
    _foreach_maximum _foreach_minimum _foreach_mul _foreach_neg _foreach_norm _foreach_pow _foreach_reciprocal
    _foreach_rsqrt _foreach_sign _foreach_sqrt _foreach_sub _foreach_zero _fused_adam _fused_adamw _fused_sgd
"""
_QUANTISATION = """
    bitsandbytes::quantize_4bit bitsandbytes::dequantize_4bit
"""
_COMMUNICATION_AND_PROFILING = """
    profiler::_record_function_enter profiler::_record_function_enter_new profiler::_record_function_exit
    c10d::allgather c10d::_allgather_base c10d::allgather_coalesced c10d::allreduce c10d::allreduce_coalesced
    c10d::alltoall c10d::alltoall_base c10d::barrier c10d::broadcast c10d::gather c10d::recv c10d::reduce
    c10d::reduce_scatter c10d::_reduce_scatter_base c10d::scatter c10d::send
    _c10d_functional::all_gather_into_tensor _c10d_functional::all_reduce _c10d_functional::broadcast
    _c10d_functional::reduce_scatter_tensor _c10d_functional::wait_tensor
    fsdp::all_gather_copy_in fsdp::chunk_cat fsdp::split_with_sizes_copy
"""

FREE: frozenset[str] = frozenset(
    name if "::" in name else f"aten::{name}"
    for names in (
        _VIEWS_AND_COPIES,
        _CREATION,
        _ELEMENTWISE,
        _REDUCTIONS_NORMS_LOSSES,
        _INDEXING_AND_SORTING,
        _OPTIMIZERS_AND_SCALERS,
        _QUANTISATION,
        _COMMUNICATION_AND_PROFILING,
    )
    for name in names.split()
)
"""Names of the operations that cost nothing by convention; the in-place form ``name_`` goes with ``name``. The
optimizer's own arithmetic is not counted by operation: see `flops.optimizer_flops`."""
