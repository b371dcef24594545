// What the parser's files share: words, lists, types and variables in PTX text.
#pragma once

#include <cctype>

#include "ptx/ptx.h"

namespace emu {

[[noreturn]] void parse_error(const std::string& what);

inline bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)); }
inline bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)); }
inline bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%'; }

std::string_view trim(std::string_view s);
// At separators that are in no brackets.
std::vector<std::string_view> split(std::string_view s, char separator);
std::vector<std::string> words(std::string_view s);
int type_bytes(std::string_view type);
// ".align 16 .b8 name[64] = {..}", after the state space.
Variable parse_variable(std::string_view s);

// The text between a function's braces.
void parse_body(Function& function, std::string_view text);

}  // namespace emu
