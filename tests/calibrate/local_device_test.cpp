#include "calibrate/local_device.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom {
namespace {

namespace fs = std::filesystem;

/// A machine in a folder: no NVML unless a test names one, 64 GB of memory.
class LocalDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) /
            ("kvfathom local " +
             std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(root_);
    write("proc/meminfo",
          "MemTotal:       65536000 kB\nMemFree:         1000000 kB\n"
          "MemAvailable:   60000000 kB\nBuffers:              16 kB\n");
    write("proc/cpuinfo",
          "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: Some CPU @ 3 GHz\n");
    system_.nvml_library = (root_ / "no-such-library.so").string();
    system_.root = root_;
  }
  void TearDown() override {
    fs::remove_all(root_);
    unsetenv("FAKE_NVML");
  }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void use_fake_nvml(const char* state) {
    setenv("FAKE_NVML", state, 1);
    system_.nvml_library = KVFATHOM_FAKE_NVML;
  }
  void amd_card(const std::string& card, const std::string& total, const std::string& used) const {
    const std::string device = "sys/class/drm/" + card + "/device/";
    write(device + "vendor", "0x1002\n");
    write(device + "device", "0x744c\n");
    write(device + "revision", "0xc8\n");
    write(device + "mem_info_vram_total", total + "\n");
    write(device + "mem_info_vram_used", used + "\n");
  }

  fs::path root_;
  LocalSystem system_;
};

TEST_F(LocalDevice, NothingButTheHost) {
  const std::vector<HardwareSpec> devices = local_devices(system_);
  ASSERT_EQ(devices.size(), 1U);
  EXPECT_EQ(devices[0].kind, "cpu");
  EXPECT_EQ(devices[0].vendor, "amd");
  EXPECT_EQ(devices[0].name, "Some CPU @ 3 GHz");
  EXPECT_EQ(devices[0].memory_bytes, 65536000LL * 1024);
  EXPECT_EQ(devices[0].free_memory_bytes, 60000000LL * 1024);
  EXPECT_EQ(devices[0].memory_provenance, Provenance::measured);
  EXPECT_TRUE(devices[0].unified_memory);
}

TEST_F(LocalDevice, OldKernelWithoutMemAvailable) {
  write("proc/meminfo", "MemTotal: 2000 kB\nMemFree: 500 kB\n");
  EXPECT_EQ(local_host(system_).free_memory_bytes, 512000);
}

TEST_F(LocalDevice, NoMeminfoIsAMachineError) {
  fs::remove_all(root_ / "proc");
  EXPECT_THROW((void)local_host(system_), MachineError);
}

TEST_F(LocalDevice, ControlGroupV2LimitsTheHost) {
  write("proc/self/cgroup", "0::/user/job\n");
  write("sys/fs/cgroup/user/memory.max", "8000000000\n");
  write("sys/fs/cgroup/user/memory.current", "3000000000\n");
  write("sys/fs/cgroup/user/memory.stat", "anon 5\ninactive_file 1000000000\nactive_file 7\n");
  write("sys/fs/cgroup/user/job/memory.max", "max\n");
  const HardwareSpec host = local_host(system_);
  EXPECT_EQ(host.memory_bytes, 8000000000);
  EXPECT_EQ(host.free_memory_bytes, 6000000000);  // 8e9 - (3e9 - 1e9 that can be dropped)
}

TEST_F(LocalDevice, ContainerWhoseGroupPathIsNotMounted) {
  write("proc/self/cgroup", "0::/docker/0123abcd\n");
  write("sys/fs/cgroup/memory.max", "4000000000\n");
  write("sys/fs/cgroup/memory.current", "5000000000\n");
  const HardwareSpec host = local_host(system_);
  EXPECT_EQ(host.memory_bytes, 4000000000);
  EXPECT_EQ(host.free_memory_bytes, 0);
}

TEST_F(LocalDevice, ControlGroupV1AndALimitAboveTheMachine) {
  write("proc/self/cgroup", "9:cpu:/\n4:memory:/job\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(local_host(system_).memory_bytes, 65536000LL * 1024);
  write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000000\n");
  write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "400000000\n");
  EXPECT_EQ(local_host(system_).memory_bytes, 1000000000);
  EXPECT_EQ(local_host(system_).free_memory_bytes, 600000000);
}

TEST_F(LocalDevice, AmdCardsInOrderWithNames) {
  amd_card("card10", "17163091968", "1048576");
  amd_card("card1", "25753026560", "753026560");
  amd_card("card2", "536870912", "1000");  // carve-out of a graphics part inside a CPU
  write("sys/class/drm/card10/device/product_name", "AMD Instinct MI210\n");
  write("sys/class/drm/card1-DP-1/status", "connected\n");
  write("sys/class/drm/renderD128/device/vendor", "0x1002\n");
  write("sys/class/drm/card3/device/vendor", "0x8086\n");
  write("usr/share/libdrm/amdgpu.ids",
        "# ids\n1.0.0\n744C,\tCC,\tAMD Radeon RX 7900 XT\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n");
  const std::vector<HardwareSpec> devices = local_devices(system_);
  ASSERT_EQ(devices.size(), 2U);
  EXPECT_EQ(devices[0].name, "AMD Radeon RX 7900 XTX");
  EXPECT_EQ(devices[0].vendor, "amd");
  EXPECT_EQ(devices[0].memory_bytes, 25753026560);
  EXPECT_EQ(devices[0].free_memory_bytes, 25000000000);
  EXPECT_EQ(devices[1].name, "AMD Instinct MI210");
}

TEST_F(LocalDevice, NvidiaSkipsTheLostGpu) {
  use_fake_nvml("three");
  amd_card("card1", "25753026560", "753026560");
  const std::vector<HardwareSpec> devices = local_devices(system_);
  ASSERT_EQ(devices.size(), 3U);  // two of three NVIDIA, then AMD
  EXPECT_EQ(devices[0].name, "NVIDIA GeForce RTX 4090");
  EXPECT_EQ(devices[0].memory_bytes, 25757220864);
  EXPECT_EQ(devices[0].free_memory_bytes, 25300000000);
  EXPECT_EQ(devices[0].compute_capability, "8.9");
  EXPECT_FALSE(devices[0].unified_memory);
  EXPECT_EQ(devices[2].vendor, "amd");
}

TEST_F(LocalDevice, NvidiaOnTheHostsMemory) {
  use_fake_nvml("unified");
  const std::vector<HardwareSpec> devices = local_devices(system_);
  ASSERT_EQ(devices.size(), 1U);
  EXPECT_EQ(devices[0].name, "NVIDIA GB10");
  EXPECT_EQ(devices[0].memory_bytes, 65536000LL * 1024);
  EXPECT_TRUE(devices[0].unified_memory);
}

TEST_F(LocalDevice, LibraryWithoutDriverOrGpuOrFunctions) {
  for (const char* state : {"no-driver", "no-gpu"}) {
    use_fake_nvml(state);
    EXPECT_TRUE(local_nvidia_gpus(system_).empty()) << state;
  }
  system_.nvml_library = "libm.so.6";  // opens, but is something else
  EXPECT_TRUE(local_nvidia_gpus(system_).empty());
}

}  // namespace
}  // namespace kvfathom
