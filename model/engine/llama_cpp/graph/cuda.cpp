// What the CUDA backend supports and how much it reserves for a tensor (ggml-cuda.cu, fattn.cu).
#include "model/engine/llama_cpp/graph/schedule.h"
#include "model/rounding.h"

namespace kvfathom::llama_cpp {

namespace {

constexpr std::int64_t kRowPaddingElements = 512;  // MATRIX_ROW_PADDING
constexpr std::int64_t kLongCache = 8192;          // where grouped heads leave the vector kernel
constexpr std::int64_t kFewestOffloadedRows = 32;  // GGML_OP_OFFLOAD_MIN_BATCH
constexpr std::int64_t kF16Alignment = 128;        // of the converted K and V

enum class FlashKernel : std::uint8_t { none, vector, matrix };

bool is_float(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16;
}

bool divides(const Affine& bytes, std::int64_t divisor) {
  return bytes.constant % divisor == 0 && bytes.per_full_block % divisor == 0 &&
         bytes.per_window_block % divisor == 0;
}

std::int64_t constant(const Affine& a) {
  return a.constant;
}

struct FlashOperands {
  const TensorNode& q;
  const TensorNode& k;
  const TensorNode& v;
  const TensorNode* mask;
};

FlashOperands flash_operands(const TensorGraph& graph, const TensorNode& t) {
  return {graph[t.sources[0]],
          graph[t.sources[1]],
          graph[t.sources[2]],
          t.sources[3] == kNoTensor ? nullptr : &graph[t.sources[3]]};
}

/// Query heads of one KV head can share a kernel tile.
bool grouped_queries_apply(const FlashOperands& o) {
  const std::int64_t ratio = constant(o.q.ne[2]) / constant(o.k.ne[2]);
  if (ratio < 2 || o.mask == nullptr || !divides(o.k.ne[1], kCellBlock)) {
    return false;
  }
  for (const TensorNode* t : {&o.q, &o.k, &o.v, o.mask}) {
    if (is_quantized(t->type)) {
      continue;
    }
    for (std::size_t i = 1; i < 4; ++i) {
      if (!divides(t->nb[i], 16)) {
        return false;
      }
    }
  }
  return true;
}

bool head_dims_supported(const FlashOperands& o) {
  const std::int64_t k_dim = constant(o.k.ne[0]);
  const std::int64_t v_dim = constant(o.v.ne[0]);
  const std::int64_t ratio = constant(o.q.ne[2]) / constant(o.k.ne[2]);
  switch (k_dim) {
    case 40:
    case 64:
    case 72:
    case 80:
    case 96:
    case 112:
    case 128:
    case 256:
      return v_dim == k_dim;
    case 192:
      return v_dim == 128 && grouped_queries_apply(o) && ratio % 8 == 0;
    case 320:
      return v_dim == 256 && grouped_queries_apply(o) && ratio % 32 == 0;
    case 512:
      return v_dim == k_dim && grouped_queries_apply(o);
    case 576:
      return v_dim == 512 && grouped_queries_apply(o);
    default:
      return false;
  }
}

bool cache_type_supported(DType type) {
  return is_float(type) || type == DType::q4_0 || type == DType::q4_1 || type == DType::q5_0 ||
         type == DType::q5_1 || type == DType::q8_0;
}

/// The kernel that an Ada or later GPU picks.
FlashKernel flash_kernel(const TensorGraph& graph, const TensorNode& t) {
  const FlashOperands o = flash_operands(graph, t);
  if (!head_dims_supported(o) || !cache_type_supported(o.k.type) ||
      !cache_type_supported(o.v.type)) {
    return FlashKernel::none;
  }
  const std::int64_t q_dim = constant(o.q.ne[0]);
  const std::int64_t n_queries = constant(o.q.ne[1]);
  const bool vector = q_dim <= 256 && q_dim % 64 == 0 && q_dim != 192;
  if (!vector) {
    return FlashKernel::matrix;
  }
  if (is_quantized(o.k.type) || is_quantized(o.v.type)) {
    return n_queries <= 2 ? FlashKernel::vector : FlashKernel::matrix;
  }
  const bool many_heads_long_cache = constant(o.q.ne[2]) / constant(o.k.ne[2]) > 4 &&
                                     o.k.ne[1].at(graph.usual_cells()) >= kLongCache;
  if (n_queries == 1 && constant(o.q.ne[3]) == 1 && !many_heads_long_cache) {
    return FlashKernel::vector;
  }
  return FlashKernel::matrix;
}

bool get_rows_supported(const TensorNode& rows) {
  switch (rows.type) {
    case DType::f64:
    case DType::i64:
    case DType::i16:
    case DType::i8:
    case DType::tq1_0:
    case DType::tq2_0:
    case DType::nvfp4:
      return false;
    case DType::iq4_nl:
    case DType::mxfp4:
      return constant(rows.ne[0]) % 256 == 0;
    default:
      return true;
  }
}

bool set_rows_supported(const TensorNode& t, const TensorNode& rows) {
  if (rows.type == DType::f16) {
    return t.type == DType::f16;
  }
  switch (t.type) {
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::q4_0:
    case DType::q4_1:
    case DType::q5_0:
    case DType::q5_1:
    case DType::q8_0:
    case DType::iq4_nl:
      return rows.type == DType::f32;
    default:
      return false;
  }
}

bool mul_mat_supported(const TensorNode& a, const TensorNode& b) {
  if (a.nb[0] != info(a.type).block_bytes || b.nb[0] != info(b.type).block_bytes) {
    return false;
  }
  if (b.type == DType::f16 && a.type != DType::f16) {
    return false;
  }
  return a.type != DType::tq1_0 && a.type != DType::tq2_0 && a.type != DType::i32;
}

bool ssm_scan_supported(const TensorNode& state, const TensorNode& a, const TensorNode& b) {
  const std::int64_t d_state = constant(state.ne[0]);
  if (constant(a.ne[0]) == 1) {  // Mamba-2: one decay per head
    return (d_state == 128 || d_state == 256) && constant(state.ne[1]) % 16 == 0;
  }
  return d_state == 16 && constant(state.ne[1]) == 1 && constant(state.ne[2]) % 128 == 0 &&
         constant(b.ne[1]) == 1;
}

bool binary_supported(const TensorNode& t, const TensorNode& a, const TensorNode& b) {
  const auto small = [](DType type) { return type == DType::f32 || type == DType::f16; };
  return small(a.type) && small(b.type) && small(t.type);
}

/// A copy between types, or within one if both ends are contiguous.
bool copy_supported(const TensorNode& from, const TensorNode& to) {
  if (is_float(from.type) && is_float(to.type)) {
    return true;
  }
  const auto cache = [](DType type) {
    return type == DType::q8_0 || type == DType::q4_0 || type == DType::q4_1 ||
           type == DType::q5_0 || type == DType::q5_1 || type == DType::i32;
  };
  if (from.type == DType::f32 && (cache(to.type) || to.type == DType::iq4_nl)) {
    return true;
  }
  if (to.type == DType::f32 && cache(from.type)) {
    return true;
  }
  return from.type == to.type && is_contiguous(from) && is_contiguous(to);
}

}  // namespace

bool cuda_supports(const TensorGraph& graph, TensorId id) {
  const TensorNode& t = graph[id];
  const auto source = [&](std::size_t i) -> const TensorNode& { return graph[t.sources.at(i)]; };
  switch (t.op) {
    case Op::unary:
    case Op::sum_rows:
    case Op::mean:
    case Op::group_norm:
      return is_contiguous(source(0));
    case Op::glu:
      return is_contiguous(source(0), 1);
    case Op::mul_mat:
    case Op::mul_mat_id:
      return mul_mat_supported(source(0), source(1));
    case Op::get_rows:
      return get_rows_supported(source(0));
    case Op::set_rows:
      return set_rows_supported(t, source(0));
    case Op::copy:
      return copy_supported(source(0), source(1));
    case Op::repeat:
      return source(0).type == DType::f32 || source(0).type == DType::f16;
    case Op::add:
    case Op::sub:
    case Op::mul:
    case Op::div:
      return binary_supported(t, source(0), source(1));
    case Op::norm:
    case Op::rms_norm:
    case Op::l2_norm:
      return source(0).ne[0] == 1 || source(0).nb[0] == info(source(0).type).block_bytes;
    case Op::rope:
      return source(0).nb[0] == info(source(0).type).block_bytes && is_contiguous(source(0), 2);
    case Op::pool_1d:
      return false;
    case Op::ssm_conv:
      return constant(source(0).ne[1]) % 128 == 0;
    case Op::ssm_scan:
      return ssm_scan_supported(source(0), source(3), source(4));
    case Op::flash_attention:
      return flash_kernel(graph, t) != FlashKernel::none;
    default:
      return true;
  }
}

bool cuda_offloads(const TensorGraph& graph, TensorId id) {
  const TensorNode& t = graph[id];
  switch (t.op) {
    case Op::get_rows:
      return false;
    case Op::mul_mat:
      return constant(t.ne[1]) >= kFewestOffloadedRows;
    case Op::mul_mat_id:
    case Op::rope:
      return constant(t.ne[2]) >= kFewestOffloadedRows;
    default:
      return constant(t.ne[1] * t.ne[2] * t.ne[3]) >= kFewestOffloadedRows;
  }
}

Affine cuda_alloc_bytes(const TensorGraph& graph, TensorId id) {
  const TensorNode& t = graph[id];
  Affine bytes = extent_bytes(t);
  if (t.op == Op::flash_attention && flash_kernel(graph, t) == FlashKernel::matrix) {
    const FlashOperands o = flash_operands(graph, t);
    const auto append = [&bytes](const TensorNode& source) {
      bytes.constant = round_up(bytes.constant, kF16Alignment);
      bytes += n_elements(source) * info(DType::f16).block_bytes;
    };
    const bool v_in_k =
        o.v.is_view() && (o.v.view_of == t.sources[1] ||
                          (o.v.view_of == o.k.view_of && o.v.view_offset == o.k.view_offset));
    if (o.k.type != DType::f16) {
      append(o.k);
    }
    if (o.v.type != DType::f16 && !v_in_k) {
      append(o.v);
    }
  }
  if (is_quantized(t.type) && constant(t.ne[0]) % kRowPaddingElements != 0) {
    bytes += row_bytes(t.type, kRowPaddingElements - constant(t.ne[0]) % kRowPaddingElements);
  }
  return bytes;
}

}  // namespace kvfathom::llama_cpp
