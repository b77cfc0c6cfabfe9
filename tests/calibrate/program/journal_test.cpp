#include "calibrate/program/journal.h"

#include <fstream>

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom::calibrate {
namespace {

namespace fs = std::filesystem;

fs::path fresh(const char* name) {
  fs::path path = fs::path(::testing::TempDir()) / name;
  fs::remove(path);
  return path;
}

TEST(Journal, TakesUpWhatAnotherRunOfTheSameHeadingLeft) {
  const fs::path path = fresh("journal taken up");
  {
    Journal journal(path, "machine one");
    journal.add("gemm/bf16/m:1", 0.25);
    journal.add("gemm/bf16/m:2", 1.5e-7);
  }
  std::ofstream(path, std::ios::app) << "gemm/bf16/m:4 3.0";  // cut short
  Journal journal(path, "machine one");
  ASSERT_EQ(journal.times_s().size(), 2U);
  EXPECT_EQ(journal.times_s().at("gemm/bf16/m:1"), 0.25);
  EXPECT_EQ(journal.times_s().at("gemm/bf16/m:2"), 1.5e-7);
  journal.add("gemm/bf16/m:8", 2.0);
  EXPECT_EQ(Journal(path, "machine one").times_s().size(), 3U);
}

TEST(Journal, OfAnotherMachineOrPlanIsNotTakenUp) {
  const fs::path path = fresh("journal of another");
  { Journal(path, "machine one").add("gemm/bf16/m:1", 0.25); }
  EXPECT_TRUE(Journal(path, "machine two").times_s().empty());
}

TEST(Journal, IsGoneOnceFinishedAndRefusedWhereItCannotBe) {
  const fs::path path = fresh("journal finished");
  Journal(path, "machine one").finish();
  EXPECT_FALSE(fs::exists(path));
  EXPECT_THROW(Journal("/proc/none/journal", "machine one"), MachineError);
}

}  // namespace
}  // namespace kvfathom::calibrate
