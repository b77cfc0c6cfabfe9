#include "model/io/inspect_json.h"

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "model/error.h"
#include "model/io/hf_config.h"
#include "tests/catalog_entries.h"

namespace kvfathom {
namespace {

namespace fs = std::filesystem;

const std::string kRoot = KVFATHOM_SOURCE_DIR;
const std::string kConfigs = kRoot + "/tests/data/configs";
const std::string kModels = kRoot + "/data/models";

TEST(InspectDocument, EveryCatalogModelComesBackWhole) {
  int n = 0;
  for (const auto& row : catalog::table(kConfigs + "/sources.tsv")) {
    const std::string path = kModels + "/" + catalog::id_of(row.at(1)) + ".json";
    if (!fs::exists(path)) {
      continue;
    }
    ModelSpec model = read_hf_config_text(
        catalog::patched(catalog::read_all(kConfigs + "/" + row.at(0)), row.at(6)), row.at(0));
    model.name = row.at(1);
    EXPECT_EQ(read_inspect_text(inspect_document(model), row.at(0)), model) << row.at(0);
    ++n;
  }
  EXPECT_GT(n, 150);
}

/// Mixers and fields that no config of the catalog uses.
TEST(InspectDocument, RareFieldsComeBackToo) {
  ModelSpec model;
  model.name = "rare \"quoted\"";
  model.source = "here";
  model.architecture = "none";
  model.hidden_size = 64;
  model.vocab_size = 100;
  model.norm = NormKind::layer_no_bias;
  model.rotary_factors = RotaryFactors::long_and_short;
  model.weight_dtype = DType::iq4_xs;
  model.expert_dtype = DType::mxfp4;
  model.residual_scale = 0.1;
  model.attention_temperature = true;
  model.fused_qkv = false;
  LayerSpec layer;
  layer.mixer = Attention{.n_heads = 4,
                          .n_kv_heads = 2,
                          .head_dim = 16,
                          .v_head_dim = 8,
                          .window_tokens = 128,
                          .window_kind = WindowKind::chunked,
                          .sinks = true,
                          .qk_norm = QkNorm::each_head,
                          .bias = true,
                          .output_bias = true,
                          .output_gate = true,
                          .v_is_k = true,
                          .rope_dim = 4,
                          .gate_width = 4,
                          .indexer = Indexer{2, 8, 64},
                          .kv_lora_rank = 12,
                          .q_lora_rank = 24};
  layer.parallel_residual = true;
  model.layers.push_back(layer);
  layer.mixer = SharedAttention{0, std::get<Attention>(layer.mixer)};
  layer.feed_forward = MixtureOfExperts{.n_experts = 4,
                                        .n_experts_per_token = 2,
                                        .intermediate_size = 32,
                                        .gated = false,
                                        .bias = true,
                                        .latent_size = 16,
                                        .dense_intermediate_size = 48,
                                        .merged_gate_up = true,
                                        .gating = ExpertGating::softmax_over_chosen,
                                        .normalise_weights = true,
                                        .weights_scale = 2.5,
                                        .n_expert_groups = 4,
                                        .n_expert_groups_used = 2};
  model.layers.push_back(layer);
  layer.mixer = KimiDeltaAttention{4, 16, 4, true};
  layer.feed_forward = NoFeedForward{};
  model.layers.push_back(layer);
  model.extras.push_back({"draft", 123, 2});
  EXPECT_EQ(read_inspect_text(inspect_document(model), "rare"), model);
}

TEST(InspectDocument, FoldsEqualLayersAndTellsTheBytesOfTensors) {
  ModelSpec model;
  model.hidden_size = 32;
  model.vocab_size = 2;
  model.layers.assign(5, LayerSpec{});
  model.tensors.push_back({"token_embd.weight", {32, 2, 1, 1}, DType::q8_0});
  const auto document = nlohmann::json::parse(inspect_document(model));
  ASSERT_EQ(document["layers"].size(), 1U);
  EXPECT_EQ(document["layers"][0]["first"], 0);
  EXPECT_EQ(document["layers"][0]["count"], 5);
  EXPECT_EQ(document["model"]["weight_bytes"], 68);  // two rows of one block of 34 bytes
  EXPECT_EQ(document["model"]["n_parameters"], 64);
}

TEST(InspectDocument, NotesComeBack) {
  ModelSpec model;
  model.hidden_size = 32;
  model.vocab_size = 2;
  model.layers.assign(1, LayerSpec{});
  const InspectNotes notes{"a-b", {"x/A-B"}, {"somewhere"}, {"something"}};
  EXPECT_EQ(read_inspect_notes(inspect_document(model, notes), "here"), notes);
}

// ---- Refusals: the whole line ----------------------------------------------------------------

/// The catalog's document for GLM-4.7-Flash with one JSON patch merged in.
std::string refusal(const std::string& patch) {
  nlohmann::json document =
      nlohmann::json::parse(catalog::read_all(kModels + "/glm-4.7-flash.json"));
  document.merge_patch(nlohmann::json::parse(patch));
  try {
    (void)read_inspect_text(document.dump(), "m.json");
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(InspectRefusals, NameFieldValueAndRange) {
  EXPECT_EQ(refusal(R"({"schema": "kvfathom.inspect/2"})"),
            "m.json: \"schema\": \"kvfathom.inspect/2\" is not understood; kvfathom.inspect/1");
  EXPECT_EQ(refusal(R"({"model": {"hidden_size": 0}})"),
            "m.json: \"model.hidden_size\": 0 is out of range; an integer from 1 to 16777216");
  EXPECT_EQ(refusal(R"({"model": {"n_layers": 48}})"),
            "m.json: \"model.n_layers\": 48 is not the number of layers that follow; 47");
  EXPECT_EQ(refusal(R"({"model": {"weight_dtype": "q9"}})"),
            "m.json: \"model.weight_dtype\": \"q9\" is no element type; f16, bf16, q8_0, ..");
  EXPECT_EQ(refusal(R"({"layers": [{"first": 1}]})"),
            "m.json: \"layers[0].first\": 1 leaves a gap or overlaps; 0");
  EXPECT_EQ(refusal(R"({"lairs": 1})"),
            "m.json: \"lairs\": unknown field; one of schema, kvfathom_version, id, aliases, "
            "sources, assumed, model, layers, extras, cache_plan");
}

std::string refusal_of_layer(const std::string& mixer) {
  return refusal(
      R"({"layers": [{"first": 0, "count": 47, "feed_forward": {"kind": "none"}, "mixer": )" +
      mixer + "}]}");
}

TEST(InspectRefusals, LookIntoLayers) {
  EXPECT_EQ(refusal_of_layer(R"({"kind": "mlaa"})"),
            "m.json: \"layers[0].mixer.kind\": \"mlaa\" is unknown; one of attention, mla, mamba, "
            "mamba2, gated-delta-net, kda, lightning-attention, rwkv, short-conv, shared, "
            "parallel, none");
  EXPECT_EQ(refusal_of_layer(R"({"kind": "lightning-attention", "n_heads": 2, "head_dim": 4,
                                 "n_groups": 1})"),
            "m.json: \"layers[0].mixer.n_groups\": unknown field; one of kind, n_heads, head_dim");
  EXPECT_EQ(refusal_of_layer(R"({"kind": "attention", "n_heads": 6, "n_kv_heads": 4, "head_dim": 8,
             "v_head_dim": 8, "window_tokens": null, "sinks": false, "qk_norm": "none",
             "bias": false})"),
            "m.json: layer 0: 4 KV heads do not divide 6 query heads; a divisor");
  EXPECT_EQ(refusal_of_layer(R"({"kind": "shared", "with_layer": 3, "attention": {"n_heads": 4,
             "n_kv_heads": 4, "head_dim": 8, "v_head_dim": 8, "window_tokens": null,
             "sinks": false, "qk_norm": "none", "bias": false}})"),
            "m.json: layer 0: shares with layer 3; an earlier layer with attention of its own");
}

// ---- The catalog -----------------------------------------------------------------------------

TEST(Catalog, IsWhatTheReaderMakesOfTheConfigs) {
  const catalog::Entries entries = catalog::make_entries(kConfigs);
  std::size_t n_files = 0;
  for (const auto& file : fs::directory_iterator(kModels)) {
    ++n_files;
    const auto at = entries.documents.find(file.path().stem().string());
    ASSERT_NE(at, entries.documents.end()) << file.path() << ": run scripts/make_catalog";
    EXPECT_EQ(catalog::read_all(file.path().string()), at->second)
        << file.path() << ": run scripts/make_catalog";
  }
  EXPECT_EQ(n_files, entries.documents.size());
}

/// Every config is read or refused by name; these are all that are refused.
TEST(Catalog, RefusesOnlyWhatItCannotKnow) {
  const auto refused = catalog::make_entries(kConfigs).refused;
  std::string names;
  for (const auto& [file, why] : refused) {
    names += file.substr(0, file.size() - 5) + " ";
  }
  EXPECT_EQ(names,
            "CohereLabs--command-a-plus-05-2026-bf16 deepseek-ai--DeepSeek-V4-Flash "
            "deepseek-ai--DeepSeek-V4-Pro ibm-granite--granite-4.0-h-1b "
            "mistralai--Mistral-Small-4-119B-2603 tiiuae--Falcon-H1-7B-Instruct ");
  EXPECT_EQ(refused.at("ibm-granite--granite-4.0-h-1b.json"),
            "ibm-granite--granite-4.0-h-1b.json: \"num_attention_heads\": missing; an integer from "
            "1 to 4096");
}

}  // namespace
}  // namespace kvfathom
