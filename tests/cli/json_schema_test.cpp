#include "tests/cli/json_schema.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

class Checker {
 public:
  explicit Checker(const Json& root) : root_(root) {}

  void check(const Json& value, const Json& schema, const std::string& path) {
    for (const auto& [keyword, rule] : schema.items()) {
      apply(keyword, rule, value, schema, path);
    }
  }

  [[nodiscard]] const std::vector<std::string>& faults() const { return faults_; }

 private:
  void apply(const std::string& keyword,
             const Json& rule,
             const Json& value,
             const Json& schema,
             const std::string& path) {
    static const std::set<std::string> kNotes{"$schema", "$id", "$defs", "title", "description"};
    if (kNotes.contains(keyword)) {
      return;
    }
    if (keyword == "$ref") {
      check(value, root_.at(Json::json_pointer(rule.get<std::string>().substr(1))), path);
    } else if (keyword == "type") {
      const Json types = rule.is_array() ? rule : Json::array({rule});
      const bool fits = std::any_of(
          types.begin(), types.end(), [&](const Json& type) { return is_of(value, type); });
      demand(fits, path, "is a " + std::string(value.type_name()) + ", not " + rule.dump());
    } else if (keyword == "const") {
      demand(value == rule, path, value.dump() + " is not " + rule.dump());
    } else if (keyword == "enum") {
      demand(std::find(rule.begin(), rule.end(), value) != rule.end(),
             path,
             value.dump() + " is none of " + rule.dump());
    } else if (keyword == "minimum") {
      demand(!value.is_number() || value.get<double>() >= rule.get<double>(),
             path,
             value.dump() + " is below " + rule.dump());
    } else if (keyword == "required") {
      for (const Json& name : rule) {
        demand(!value.is_object() || value.contains(name.get<std::string>()),
               path,
               "lacks " + name.dump());
      }
    } else if (keyword == "properties") {
      check_properties(value, rule, path);
    } else if (keyword == "additionalProperties") {
      demand(rule.is_boolean(), path, "additionalProperties may be true or false here");
      check_additional(value, schema, rule == Json(true), path);
    } else if (keyword == "items") {
      for (std::size_t i = 0; value.is_array() && i < value.size(); ++i) {
        check(value[i], rule, path + "/" + std::to_string(i));
      }
    } else if (keyword == "anyOf") {
      const bool fits = std::any_of(rule.begin(), rule.end(), [&](const Json& option) {
        Checker attempt(root_);
        attempt.check(value, option, path);
        return attempt.faults().empty();
      });
      demand(fits, path, "fits no alternative of anyOf");
    } else {
      demand(false, path, "the schema's keyword " + keyword + " is not checked");
    }
  }

  static bool is_of(const Json& value, const Json& type) {
    const auto name = type.get<std::string>();
    return name == "integer"  ? value.is_number_integer()
           : name == "number" ? value.is_number()
                              : name == value.type_name();
  }

  void check_properties(const Json& value, const Json& rule, const std::string& path) {
    for (const auto& [name, schema] : rule.items()) {
      if (value.is_object() && value.contains(name)) {
        check(value.at(name), schema, path + "/" + name);
      }
    }
  }

  void check_additional(const Json& value,
                        const Json& schema,
                        bool allowed,
                        const std::string& path) {
    if (allowed || !value.is_object()) {
      return;
    }
    for (const auto& [name, ignored] : value.items()) {
      demand(schema.contains("properties") && schema.at("properties").contains(name),
             path,
             "has the unknown field " + name);
    }
  }

  void demand(bool holds, const std::string& path, const std::string& fault) {
    if (!holds) {
      faults_.push_back((path.empty() ? "/" : path) + ": " + fault);
    }
  }

  const Json& root_;
  std::vector<std::string> faults_;
};

}  // namespace

std::vector<std::string> schema_faults(const nlohmann::json& document,
                                       const nlohmann::json& schema) {
  Checker checker(schema);
  checker.check(document, schema, "");
  return checker.faults();
}

namespace {

std::vector<std::string> faults(const char* document, const char* schema) {
  return schema_faults(Json::parse(document), Json::parse(schema));
}

using Faults = std::vector<std::string>;

TEST(JsonSchema, AcceptsWhatFits) {
  EXPECT_EQ(faults(R"({"n": 1, "s": null})",
                   R"({"type": "object", "required": ["n"], "additionalProperties": false,
                       "properties": {"n": {"type": "integer", "minimum": 1},
                                      "s": {"type": ["string", "null"]}}})"),
            Faults{});
  EXPECT_EQ(faults(R"([1, "a"])",
                   R"({"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/n"},
                                                            {"const": "a"}]},
                       "$defs": {"n": {"type": "number"}}})"),
            Faults{});
}

TEST(JsonSchema, NamesEachFault) {
  EXPECT_EQ(faults("1.5", R"({"type": "integer"})"), Faults{"/: is a number, not \"integer\""});
  EXPECT_EQ(faults("{}", R"({"required": ["a"]})"), Faults{"/: lacks \"a\""});
  EXPECT_EQ(faults(R"({"b": 1})", R"({"properties": {}, "additionalProperties": false})"),
            Faults{"/: has the unknown field b"});
  EXPECT_EQ(faults(R"([0])", R"({"items": {"minimum": 1}})"), Faults{"/0: 0 is below 1"});
  EXPECT_EQ(faults(R"("c")", R"({"enum": ["a", "b"]})"), Faults{R"(/: "c" is none of ["a","b"])"});
  EXPECT_EQ(faults("2", R"({"anyOf": [{"const": 1}, {"type": "string"}]})"),
            Faults{"/: fits no alternative of anyOf"});
}

TEST(JsonSchema, DoesNotPassOverKeywordsItDoesNotKnow) {
  EXPECT_EQ(faults("1", R"({"maximum": 3})"),
            Faults{"/: the schema's keyword maximum is not checked"});
}

}  // namespace
}  // namespace kvfathom::testing
