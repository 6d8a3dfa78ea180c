// The state's values as rows of the tables in schema.h, and back. Pure; what SQLite is
// told and asked stands in store.cc.
//
// Invariant: reading back what was written gives the same values; a row that no write can
//            have made is an error.
// Errors:    kInvalid, naming table and column.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "meshd/schema.h"
#include "meshd/store.h"

namespace meshd {

struct Blob {
  std::string bytes;
  bool operator==(const Blob&) const = default;
};
using Value = std::variant<std::monostate, std::int64_t, std::string, Blob>;
using Row = std::vector<Value>;

enum class RowAction : std::uint8_t {
  kPut,      // the row, in place of one with its key
  kDrop,     // the row with this key
  kDropAll,  // all rows whose first column is this
};

struct RowWrite {
  schema::Table table = schema::Table::kDeclarations;
  RowAction action = RowAction::kPut;
  Row row;
};

// What a change comes to, in order. `wall_s`: seconds since 1970, for people.
[[nodiscard]] std::vector<RowWrite> rows_of(const StoreChange& change, std::int64_t wall_s);
// Adds what one row says; rows of a table come after those it refers to.
[[nodiscard]] Status read_row(schema::Table table, const Row& row, StoredState& into);

// FNV-1a over name and values: any single changed byte changes it. Not against malice:
// who can write the file is root already.
[[nodiscard]] std::uint32_t row_sum(std::string_view table, const Row& row);

// The form in which a declaration is stored: mesh.v1.Workload, defaults filled in.
[[nodiscard]] std::string encode_declaration(const policy::Declaration& declaration);
[[nodiscard]] Result<policy::Declaration> decode_declaration(const std::string& bytes);

}  // namespace meshd
