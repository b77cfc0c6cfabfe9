#include "model/cache/request_text.h"

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom::cache {
namespace {

std::string refusal(const std::string& text) {
  try {
    (void)parse_scheme(text);
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(SchemeText, ReadsParametersInAnyOrderAndCase) {
  EXPECT_EQ(parse_scheme("KIVI:group=64,bits=4").request,
            SchemeRequest(CacheScheme::kivi, KiviParameters{.bits = 4, .group = 64}));
  EXPECT_EQ(parse_scheme("residual:checkpoints=all,window=512").request,
            SchemeRequest(CacheScheme::residual, ResidualParameters{.window = 512}));
  EXPECT_EQ(parse_scheme("head-linear:references=5,predicted=0.5,tensors=k").request,
            SchemeRequest(CacheScheme::head_linear,
                          HeadLinearParameters{.tensors = HeadLinearParameters::kK}));
  EXPECT_EQ(parse_scheme("evict-streaming").request.parameters,
            SchemeParameters(EvictStreaming::kDefaults));
  EXPECT_EQ(parse_scheme("native").request, SchemeRequest(CacheScheme::native));
}

TEST(SchemeText, Composes) {
  const ParsedScheme parsed = parse_scheme("xquant:bits=2+offload:tier=nvme,kept=0.125");
  EXPECT_EQ(parsed.request, SchemeRequest(CacheScheme::xquant, XQuantParameters{.bits = 2}));
  EXPECT_EQ(parsed.offload, (Offload{.tier = Offload::kNvme, .kept = 125}));
  EXPECT_EQ(parse_scheme("offload").offload, Offload{});
  EXPECT_EQ(parse_scheme("offload").request.id, CacheScheme::offload);
}

TEST(SchemeText, RoundTripsThroughBothSpellings) {
  for (const char* text : {"native",
                           "kivi",
                           "kivi:bits=4",
                           "k-only:projector=learned,rank=122,rebuild=materialised",
                           "evict-snapkv:budget=100,prefill=layerwise",
                           "residual:checkpoints=tokens",
                           "head-linear:predicted=0.25",
                           "offload:kept=0.5",
                           "mla-with-v+offload:tier=network,kept=0"}) {
    const ParsedScheme parsed = parse_scheme(text);
    EXPECT_EQ(spelled(parsed.request, parsed.offload), text);
    const std::string every = spelled(parsed.request, parsed.offload, Spelling::every);
    EXPECT_EQ(parse_scheme(every), parsed) << every;
  }
  EXPECT_EQ(spelled(CacheScheme::kivi, std::nullopt, Spelling::every),
            "kivi:bits=2,group=32,residual=128");
}

TEST(SchemeText, RefusalsNameWhatIsAllowed) {
  EXPECT_EQ(refusal("kivi:bits=9"), "--scheme: kivi: bits is \"9\"; use 2 to 8");
  EXPECT_EQ(refusal("kivi:bit=2"),
            "--scheme: kivi has no parameter \"bit\"; use one of bits, group, residual");
  EXPECT_EQ(refusal("residual:checkpoints=some"),
            "--scheme: residual: checkpoints is \"some\"; use all|tokens|1 to 1024");
  EXPECT_EQ(refusal("offload:kept=1.5"), "--scheme: offload: kept is \"1.5\"; use 0 to 1");
  EXPECT_EQ(refusal("offload:kept=0.1234"), "--scheme: offload: kept is \"0.1234\"; use 0 to 1");
  EXPECT_EQ(refusal("kivi:bits"),
            "--scheme: kivi: \"bits\" is no key=value; write kivi:key=value,key=value");
  EXPECT_EQ(refusal("full:bits=2"),
            "--scheme: full takes no parameters, found \"bits=2\"; leave them out");
  EXPECT_EQ(refusal("evict-snapkv:budget=8"),
            "--scheme: evict-snapkv: window is 32; use at most the budget, 8");
  EXPECT_EQ(refusal("evict-h2o:generated=8").substr(0, 39),
            "--scheme: evict-h2o: generated is 8; le");
  EXPECT_EQ(refusal("evict-grkv:prefill=streamed").substr(0, 42),
            "--scheme: evict-grkv: prefill is \"streamed");
  EXPECT_EQ(refusal("kivi+kivi").substr(0, 44), "--scheme: \"kivi+kivi\" joins what does not co");
  EXPECT_EQ(refusal("offload+offload").substr(0, 27), "--scheme: \"offload+offload\"");
  EXPECT_NE(refusal("kivi:bits=\x1b[2J").find("\"?[2j\""), std::string::npos);
  EXPECT_EQ(refusal("kvi").substr(0, 48), "--scheme: \"kvi\" is not a scheme that is known; u");
}

TEST(SchemeText, EverySchemeWithParametersExplainsThem) {
  EXPECT_EQ(parameter_help(CacheScheme::kivi),
            "bits=2 (2 to 8), group=32 (8 to 1024), residual=128 (0 to 4096)");
  EXPECT_EQ(parameter_help(CacheScheme::full), "");
  for (const SchemeInfo& row : all_schemes()) {
    EXPECT_EQ(parameter_help(row.scheme).empty(), is_model_scheme(row.scheme)) << row.name;
  }
}

}  // namespace
}  // namespace kvfathom::cache
