#include "model/io/file.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/error.h"

namespace kvfathom {
namespace {

/// A folder of its own for each test, removed afterwards.
class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvfathom-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }

 private:
  std::string folder_;
};

/// The message of the InputError that `call` throws.
template <class Call>
std::string input_error(Call call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "nothing thrown";
}

std::string open_error(const std::string& path) {
  return input_error([&] { static_cast<void>(MappedFile::open(path)); });
}

TEST_F(FileTest, MapsWhatIsThere) {
  const std::string name = write("a", std::string("GG\0UF", 5));
  const MappedFile file = MappedFile::open(name);
  EXPECT_EQ(file.bytes(), std::string_view("GG\0UF", 5));
  EXPECT_EQ(file.size_bytes(), 5);
  EXPECT_EQ(file.path(), name);
}

TEST_F(FileTest, MovesTheMapping) {
  MappedFile a = MappedFile::open(write("a", "first"));
  MappedFile b = MappedFile::open(write("b", "second"));
  a = std::move(b);
  EXPECT_EQ(a.bytes(), "second");
  const MappedFile c(std::move(a));
  EXPECT_EQ(c.bytes(), "second");
}

TEST_F(FileTest, ReadsTextUpToTheBound) {
  const std::string name = write("t", "0123456789");
  EXPECT_EQ(read_text_file(name), "0123456789");
  EXPECT_EQ(read_text_file(name, 10), "0123456789");
  EXPECT_EQ(input_error([&] { static_cast<void>(read_text_file(name, 9)); }),
            name + ": holds 10 bytes; at most 9");
}

TEST_F(FileTest, RefusesByKind) {
  EXPECT_EQ(open_error(path("none")), path("none") + ": no such file; a readable regular file");
  EXPECT_EQ(open_error(write("f", "x") + "/below"),
            path("f") + "/below: no such file; a readable regular file");
  EXPECT_EQ(open_error(write("empty", "")), path("empty") + ": is empty; a file with content");
  std::filesystem::create_directory(path("dir"));
  EXPECT_EQ(open_error(path("dir")), path("dir") + ": is a directory; a readable regular file");
  EXPECT_EQ(open_error("/dev/null"), "/dev/null: is a device; a readable regular file");
  std::filesystem::create_symlink(path("loop"), path("loop"));
  EXPECT_EQ(open_error(path("loop")),
            path("loop") + ": its links form a cycle; a readable regular file");
  EXPECT_EQ(open_error(std::string("a\0b", 3)),
            "file name: holds a zero byte; a readable regular file");
}

TEST_F(FileTest, NeverWaitsOnAFifo) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  ::alarm(5);  // a reader that blocks dies here instead of hanging the run
  EXPECT_EQ(open_error(path("fifo")), path("fifo") + ": is a FIFO; a readable regular file");
  ::alarm(0);
}

TEST_F(FileTest, NamesMissingPermission) {
  const std::string name = write("secret", "x");
  std::filesystem::permissions(name, std::filesystem::perms::none);
  std::filesystem::permissions(std::filesystem::path(name).parent_path(),
                               std::filesystem::perms::others_exec,
                               std::filesystem::perm_options::add);
  // Root may read anything, so a child gives that up first.
  EXPECT_EXIT(
      {
        if (::geteuid() == 0 && ::setuid(65534) != 0) {
          std::exit(9);
        }
        std::cerr << open_error(name);
        std::exit(0);
      },
      ::testing::ExitedWithCode(0),
      "secret: no permission to read it; a readable regular file");
}

TEST_F(FileTest, TellsFilesFromFolders) {
  const std::string name = write("f", "x");
  EXPECT_TRUE(is_regular_file(name));
  EXPECT_FALSE(is_directory(name));
  EXPECT_FALSE(is_regular_file(path("none")));
  std::filesystem::create_directory(path("dir"));
  EXPECT_TRUE(is_directory(path("dir")));
  EXPECT_FALSE(is_regular_file(path("dir")));
}

TEST_F(FileTest, WritesAFileWhole) {
  const std::string name = write("answer", "the old text, which is longer than the new");
  write_file(name, "new");
  EXPECT_EQ(read_text_file(name), "new");
  // Nothing is left beside it.
  const auto folder = std::filesystem::path(name).parent_path();
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_FALSE(entry.path().string().ends_with(".new")) << entry.path();
  }
}

TEST_F(FileTest, AFailedWriteLeavesTheOldFile) {
  const std::string name = path("folder");
  std::filesystem::create_directory(name);
  EXPECT_THROW(write_file(name, "text"), MachineError);  // a folder cannot be renamed over
  EXPECT_TRUE(is_directory(name));
  EXPECT_THROW(write_file(path("no/such/folder/file"), "text"), MachineError);
}

}  // namespace
}  // namespace kvfathom
