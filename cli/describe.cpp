#include "cli/describe.h"

#include "cli/format.h"

namespace kvfathom::cli {
namespace {

std::string of(const Attention& a) {
  std::string text = "attention: " + thousands(a.n_heads) + " heads, " + thousands(a.n_kv_heads) +
                     " for K and V, " + thousands(a.head_dim) + " wide";
  if (a.v_head_dim != a.head_dim) {
    text += " (V " + thousands(a.v_head_dim) + ")";
  }
  if (a.window_tokens) {
    text += a.window_kind == WindowKind::chunked ? ", chunks of " : ", window of ";
    text += counted(*a.window_tokens, "token");
  }
  return text + (a.sinks ? ", sinks" : "");
}

std::string of(const LatentAttention& a) {
  std::string text = "latent attention: " + thousands(a.n_heads) + " heads, latent " +
                     thousands(a.kv_lora_rank) + " + rope key " + thousands(a.qk_rope_head_dim);
  if (a.indexer) {
    text += ", indexer keeps the best " + thousands(a.indexer->top_k) + " tokens";
  }
  return text;
}

std::string of(const Mamba& m) {
  return "Mamba: " + thousands(m.d_inner) + " channels, state " + thousands(m.d_state);
}

std::string of(const Mamba2& m) {
  return "Mamba-2: " + thousands(m.n_heads) + " heads, " + thousands(m.d_inner) +
         " channels, state " + thousands(m.d_state);
}

std::string of(const GatedDeltaNet& g) {
  return "gated delta net: " + thousands(g.n_v_heads) + " heads, state " + thousands(g.k_head_dim) +
         " x " + thousands(g.v_head_dim);
}

std::string of(const KimiDeltaAttention& k) {
  return "Kimi delta attention: " + thousands(k.n_heads) + " heads, state " +
         thousands(k.head_dim) + " x " + thousands(k.head_dim);
}

std::string of(const LightningAttention& l) {
  return "lightning attention: " + thousands(l.n_heads) + " heads, state " + thousands(l.head_dim) +
         " x " + thousands(l.head_dim);
}

std::string of(const Rwkv& r) {
  return "RWKV-" + std::to_string(r.version) + ": " + thousands(r.n_heads) + " heads, state " +
         thousands(r.head_dim) + " x " + thousands(r.head_dim);
}

std::string of(const ShortConv& s) {
  return "short convolution: " + thousands(s.channels) + " channels, " + thousands(s.d_conv) +
         " wide";
}

std::string of(const SharedAttention& s) {
  return "reads the K and V of layer " + std::to_string(s.with_layer) + "; " + of(s.attention);
}

std::string of(const ParallelMixers& p) {
  return of(p.attention) + "; beside it " + of(p.mamba2);
}

std::string of(const NoMixer&) {
  return "no mixer";
}

std::string of(const DenseFeedForward& f) {
  return "dense: " + thousands(f.intermediate_size) + (f.gated ? ", gated" : "");
}

std::string of(const MixtureOfExperts& m) {
  std::string text = "experts: " + thousands(m.n_experts_per_token) + " of " +
                     thousands(m.n_experts) + ", each " + thousands(m.intermediate_size);
  if (m.n_shared_experts > 0) {
    text += ", " + thousands(m.n_shared_experts) + " shared";
  }
  return text;
}

std::string of(const NoFeedForward&) {
  return "no feed-forward";
}

}  // namespace

std::string describe(const Mixer& mixer) {
  return std::visit([](const auto& m) { return of(m); }, mixer);
}

std::string describe(const FeedForward& feed_forward) {
  return std::visit([](const auto& f) { return of(f); }, feed_forward);
}

}  // namespace kvfathom::cli
