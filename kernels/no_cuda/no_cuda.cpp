// The device of a build without CUDA: there is none, and every launch says so. The only place
// that knows; elsewhere there is no #ifdef.
#include <string>

#include "kernels/bandwidth/bandwidth.h"
#include "kernels/cache_write/cache_write.h"
#include "kernels/common/device.h"
#include "kernels/common/error.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/eviction_scores/eviction_scores.h"
#include "kernels/eviction_scores/select_tokens.h"
#include "kernels/gemm/gemm.h"
#include "kernels/head_reconstruction/head_reconstruction.h"
#include "kernels/host_transfer/host_transfer.h"
#include "kernels/index_scores/index_scores.h"
#include "kernels/launch/launch.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "kernels/residual_recompute/residual_recompute.h"
#include "kernels/ridge_refine/ridge_refine.h"
#include "kernels/simt/emulator_control.h"
#include "kernels/state_update/state_update.h"
#include "kernels/value_reconstruction/value_reconstruction.h"

namespace kvfathom::kernels {
namespace {

constexpr const char* kNotBuilt = "this build has no CUDA (configure with -DKVFATHOM_CUDA=ON)";

[[noreturn]] void not_built() {
  throw NoDevice(kNotBuilt);
}

}  // namespace

std::string device_missing() {
  return kNotBuilt;
}
const DeviceInfo& device() {
  not_built();
}
void* device_allocate(std::size_t) {
  not_built();
}
void device_free(void*) noexcept {}
void copy_to_device(void*, const void*, std::size_t) {
  not_built();
}
void copy_from_device(void*, const void*, std::size_t) {
  not_built();
}
void synchronize(Stream) {
  not_built();
}

void* pinned_allocate(std::size_t) {
  not_built();
}
void pinned_free(void*) noexcept {}
void copy_async(void*, const void*, std::size_t, Stream) {
  not_built();
}
Stream create_stream() {
  not_built();
}
void destroy_stream(Stream) noexcept {}
void wait_for(Stream, Stream) {
  not_built();
}

// ---- launches, in alphabetical order ----
void add_launch(const AddParams&, Stream) {
  not_built();
}
void bandwidth_launch(const BandwidthParams&, int, std::uint32_t*, Stream) {
  not_built();
}
void cache_write_launch(const CacheWriteParams&, Stream) {
  not_built();
}
void conv_state_launch(const ConvStateParams&, Stream) {
  not_built();
}
void decode_attention_launch(const DecodeAttentionParams&, int, void*, Stream, DecodeKernel) {
  not_built();
}
void delta_net_launch(const DeltaNetParams&, Stream) {
  not_built();
}
void dequantise_launch(const DequantiseParams&, Stream) {
  not_built();
}
void empty_launch_launch(const EmptyLaunchParams&, Stream) {
  not_built();
}
void eviction_scores_launch(const EvictionScoresParams&, void*, Stream) {
  not_built();
}
void gated_activation_launch(const GatedActivationParams&, Stream) {
  not_built();
}
void gather_cache_launch(const GatherCacheParams&, Stream) {
  not_built();
}
GemmKernel gemm_kernel(const GemmParams&, const DeviceInfo&) {
  not_built();
}
void gemm_launch(const GemmParams&, Stream, GemmKernel) {
  not_built();
}
void gemm_library_launch(const GemmParams&, Stream) {
  not_built();
}
std::string gemm_library_missing() {
  return kNotBuilt;
}
void head_decode_launch(const HeadReconstructionParams&, int, int, void*, Stream) {
  not_built();
}
void head_rows_launch(const HeadReconstructionParams&, HeadSide, int, Stream) {
  not_built();
}
void host_transfer_copies(const HostTransferParams&, Stream) {
  not_built();
}
void host_transfer_gather_launch(const HostTransferParams&, const TransferPiece*, int, Stream) {
  not_built();
}
void index_scores_launch(const IndexScoresParams&, Stream, IndexKernel) {
  not_built();
}
void mamba2_launch(const Mamba2Params&, Stream) {
  not_built();
}
void mla_decode_launch(const MlaDecodeParams&, const MlaDecodePlan&, void*, Stream) {
  not_built();
}
void moe_ffn_launch(const MoeFfnParams&, void*, Stream, MoeKernel) {
  not_built();
}
std::int64_t moe_ffn_scratch_bytes(const MoeFfnParams&) {
  not_built();
}
MoeKernel moe_kernel(const MoeFfnParams&, const DeviceInfo&) {
  not_built();
}
void pool_scores_launch(const PoolScoresParams&, Stream) {
  not_built();
}
void prefill_attention_launch(const PrefillAttentionParams&, const PrefillAttentionPlan&, Stream) {
  not_built();
}
void residual_recompute_launch(const ResidualRecomputeParams&, void*, Stream) {
  not_built();
}
void ridge_refine_launch(const RidgeRefineParams&, int, void*, Stream) {
  not_built();
}
void rms_norm_launch(const RmsNormParams&, Stream) {
  not_built();
}
void sample_launch(const SampleParams&, Stream) {
  not_built();
}
void select_tokens_launch(const SelectTokensParams&, Stream) {
  not_built();
}
void value_decode_launch(const ValueReconstructionParams&, int, int, void*, Stream) {
  not_built();
}
void value_rows_launch(const ValueReconstructionParams&, int, Stream) {
  not_built();
}

namespace simt {
void set_schedule(const Schedule&) {}
std::optional<Traffic> take_traffic() {
  return std::nullopt;
}
void set_emulated_device(std::optional<DeviceInfo> /*info*/) {}  // NOLINT: as declared
std::vector<SyncSite> take_sync_sites() {
  return {};
}
void skip_sync(std::optional<SyncSite> /*site*/) {}  // NOLINT: as declared
}  // namespace simt

}  // namespace kvfathom::kernels
