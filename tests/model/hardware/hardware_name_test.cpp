#include "model/hardware/hardware_name.h"

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

TEST(HardwareName, SpellingsOfOneNameAreOneKey) {
  for (const char* name : {"rtx-4090", "RTX 4090", "rtx4090", "4090", "NVIDIA GeForce RTX 4090"}) {
    EXPECT_EQ(hardware_key(name), "4090") << name;
  }
  EXPECT_EQ(hardware_key("NVIDIA A100-SXM4-80GB"), "a100sxm480gb");
  EXPECT_EQ(hardware_key("GeForce RTX 4060 Ti 16 GB"), "4060ti16gb");
  EXPECT_EQ(hardware_key("AMD Radeon RX 7900 XTX"), hardware_key("rx7900-xtx"));
  EXPECT_EQ(hardware_key("Ryzen AI Max+ 395"), "ryzenaimaxplus395");
  EXPECT_EQ(hardware_key("Xeon 6980P (DDR5-6400)"), "xeon6980pddr56400");
}

TEST(HardwareName, DifferentDevicesStayDifferent) {
  EXPECT_NE(hardware_key("rtx-4090"), hardware_key("rtx-4090-d"));
  EXPECT_NE(hardware_key("Quadro RTX 6000"), hardware_key("RTX 6000 Ada"));
  EXPECT_NE(hardware_key("RTX A6000"), hardware_key("RTX 6000 Ada"));
}

TEST(HardwareName, NothingButBrandsIsKept) {
  EXPECT_EQ(hardware_key("RTX"), "rtx");
  EXPECT_EQ(hardware_key(""), "");
  EXPECT_EQ(hardware_key("  / "), "");
}

TEST(HardwareName, EditDistance) {
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);  // the textbook's example
  EXPECT_EQ(edit_distance("4090", "4090"), 0U);
  EXPECT_EQ(edit_distance("4900", "4090"), 1U);  // two neighbours swapped
  EXPECT_EQ(edit_distance("ca", "abc"), 3U);     // where free Damerau-Levenshtein says 2
  EXPECT_EQ(hardware_slug("NVIDIA RTX_4090"), "nvidia-rtx-4090");
}

}  // namespace
}  // namespace kvfathom
