"""The size check finds functions as a reader would, and refuses what is too long."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_size  # noqa: E402

EXAMPLE = """
#define WRAP(x) { x
namespace a::b {
namespace {
struct Plain { int x = 0; std::array<int, 2> y{1, 2}; };
constexpr Row kRows[] = {{1, 2},
                         {3, 4}};
const std::vector<int> kList{1, 2};
enum class E : std::uint8_t { kOne };
}  // namespace

template <class T>
class C : public Base<decltype(f())> {
 public:
  explicit C(int a, std::string b = {})
      : a_(a), b_{std::move(b)}, c_{1} {
    if (a) {
      run();
    }
  }
  ~C() override = default;
  bool operator==(const C&) const { return true; }
  int size() const noexcept { return 1'000; }

 private:
  int c_ = 0;
};

Result<int> C::parse(std::string_view text) {
  const auto inner = [&](int x) {
    return x;
  };
  const char* raw = R"(}}{{)";  // }
  return '}' + inner(1);
}

auto lambda = [](int x) {
  return x;
};

extern "C" int entry(int) {
  return 0;
}
}  // namespace a::b

TEST(Suite, SaysWhatItDoes) {
  EXPECT_EQ(1, 1);
}
"""


def check(path, text):
    with tempfile.TemporaryDirectory() as root:
        file = pathlib.Path(root, path)
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
        problems, notes, _ = check_size.check(root)
        return problems, notes


def function(lines):
    return "void long_one() {\n" + "  step();\n" * (lines - 1) + "}\n"


class CheckSizeTest(unittest.TestCase):
    def test_finds_each_function_once_with_its_length(self):
        found = {name: length for name, _, length in check_size.functions(EXAMPLE)}
        self.assertEqual(
            {"C": 4, "operator==": 0, "size": 0, "C::parse": 6, "entry": 2,
             "TEST(Suite, SaysWhatItDoes)": 2},
            {n: length for n, length in found.items() if n not in ("f", "?")},
        )

    def test_refuses_a_long_function_and_notes_a_longish_one(self):
        self.assertEqual(([], []), check("dns/a.cc", function(60)))
        problems, notes = check("dns/a.cc", function(61))
        self.assertEqual(([], 1), (problems, len(notes)))
        problems, _ = check("dns/a.cc", "\n" + function(101))
        self.assertEqual(1, len(problems))
        self.assertIn("dns/a.cc:2: ", problems[0])
        self.assertIn("long_one", problems[0])

    def test_refuses_long_files_headers_and_lines(self):
        self.assertEqual([], check("dns/a.cc", "\n" * 500)[1])
        self.assertEqual(1, len(check("dns/a.cc", "\n" * 501)[1]))
        self.assertEqual([], check("dns/a.cc", "\n" * 800)[0])
        self.assertEqual(1, len(check("dns/a.cc", "\n" * 801)[0]))
        self.assertEqual([], check("dns/a.h", "\n" * 200)[0])
        self.assertEqual(1, len(check("dns/a.h", "\n" * 201)[0]))
        self.assertEqual([], check("dns/a.cc", "x" * 100 + "\n")[0])
        self.assertEqual(1, len(check("dns/a.cc", "x" * 101 + "\n")[0]))

    def test_refuses_a_base_that_grew(self):
        self.assertEqual(2, len(check("base/ip.cc", "\n" * 1051)[0]))


if __name__ == "__main__":
    unittest.main()
