#include "cli/data_dir.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom {
namespace {

namespace fs = std::filesystem;

class DataDirectory : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) /
            ("data dir " +
             std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(root_);
    fs::create_directories(root_ / "build data");
    fs::create_directories(root_ / "prefix" / "bin");
  }
  void TearDown() override { fs::remove_all(root_); }

  [[nodiscard]] fs::path build_data() const { return root_ / "build data"; }
  [[nodiscard]] fs::path executable() const { return root_ / "prefix" / "bin" / "kvfathom"; }

  fs::path root_;
};

TEST_F(DataDirectory, EnvironmentWins) {
  fs::create_directories(root_ / "own");
  EXPECT_EQ(data_directory((root_ / "own").c_str(), executable(), build_data()), root_ / "own");
}

TEST_F(DataDirectory, EmptyEnvironmentIsNone) {
  EXPECT_EQ(data_directory("", executable(), build_data()), build_data());
}

TEST_F(DataDirectory, WrongEnvironmentIsRefused) {
  const std::string wrong = (root_ / "absent").string();
  try {
    (void)data_directory(wrong.c_str(), executable(), build_data());
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()), "KVFATHOM_DATA_DIR: \"" + wrong + "\" is no directory");
  }
}

TEST_F(DataDirectory, InstalledBeatsBuildTree) {
  const fs::path shared = root_ / "prefix" / "share" / "kvfathom";
  EXPECT_EQ(data_directory(nullptr, executable(), build_data()), build_data());
  fs::create_directories(shared);
  EXPECT_EQ(data_directory(nullptr, executable(), build_data()), shared);
}

TEST_F(DataDirectory, NoneIsAMachineError) {
  EXPECT_THROW((void)data_directory(nullptr, executable(), root_ / "absent"), MachineError);
  EXPECT_THROW((void)data_directory(nullptr, "", root_ / "absent"), MachineError);
}

TEST(DataDirectoryHere, HoldsTheCatalog) {
  EXPECT_TRUE(fs::is_directory(data_directory() / "hardware"));
}

}  // namespace
}  // namespace kvfathom
