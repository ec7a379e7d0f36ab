//! Text that others wrote, made safe for a terminal: a guest's log, names, reasons. A terminal obeys what it is sent, so nothing reaches it that
//! moves the cursor, sets the clipboard, asks for an answer that would be typed into the shell, or shows text in another order than it has.

/// Whether a terminal would obey it, or show what follows out of order.
fn obeyed(c: char) -> bool {
    c.is_control()
        // Directions of text: embedding, override, isolates and marks.
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        // Line and paragraph separators, and invisible text.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line: whatever a terminal would obey is a space.
#[must_use]
pub fn line(text: &str) -> String {
    text.chars().map(|c| if obeyed(c) { ' ' } else { c }).collect()
}

/// Several lines.
#[must_use]
pub fn lines(text: &str) -> String {
    text.chars().map(|c| if obeyed(c) && c != '\n' { ' ' } else { c }).collect()
}

/// What a guest prints, as it comes. Colours and cursor movements are left out, other controls are shown as `�`.
#[derive(Debug, Default)]
pub struct GuestText {
    /// The beginning of a character whose rest hasn't come.
    partial: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// The last character was ESC.
    Escape,
    /// Within `ESC [ …`: it ends with a letter.
    Control,
    /// Within `ESC ] …` or another string: it ends with BEL, or with ESC and one more. So many characters of it have passed.
    String(u32),
}

/// A string that doesn't end is text again after this many characters: a guest can't hide all that follows.
const STRING_MAX: u32 = 4096;

impl GuestText {
    pub fn show(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut shown = String::with_capacity(all.len());
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    text.chars().for_each(|c| self.take(c, &mut shown));
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    String::from_utf8_lossy(valid).chars().for_each(|c| self.take(c, &mut shown));
                    let Some(bad) = error.error_len() else {
                        self.partial = after.to_vec();
                        break;
                    };
                    self.take(char::REPLACEMENT_CHARACTER, &mut shown);
                    rest = after.get(bad..).unwrap_or_default();
                }
            }
        }
        shown
    }

    fn take(&mut self, c: char, shown: &mut String) {
        self.state = match (self.state, c) {
            (State::Text | State::Escape | State::Control, '\u{1b}') => State::Escape,
            (State::Text, '\n' | '\t') => {
                shown.push(c);
                State::Text
            }
            // Serial lines end with both; alone it would overwrite what is shown.
            (State::Text, '\r') => State::Text,
            (State::Text, c) => {
                shown.push(if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c });
                State::Text
            }
            (State::Escape, '[') => State::Control,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::String(0),
            (State::Escape, _) => State::Text,
            (State::Control, '\u{40}'..='\u{7e}') => State::Text,
            (State::Control, '\u{20}'..='\u{3f}') => State::Control,
            // No sequence has this: it was none.
            (State::Control, c) => {
                self.state = State::Text;
                return self.take(c, shown);
            }
            (State::String(_), '\u{7}') => State::Text,
            (State::String(_), '\u{1b}') => State::Escape,
            (State::String(passed), _) if passed < STRING_MAX => State::String(passed + 1),
            (State::String(_), _) => State::Text,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        GuestText::default().show(text.as_bytes())
    }

    #[test]
    fn a_log_is_readable_and_commands_nothing() {
        assert_eq!(shown("[  0.1] boot\r\n\tok é 漢\n"), "[  0.1] boot\n\tok é 漢\n");
        assert_eq!(shown("\u{1b}[1;31mred\u{1b}[0m \u{1b}[2Jx\u{1b}cy"), "red xy");
        assert_eq!(shown("a\u{1b}]52;c;Y3VybA==\u{7}b"), "ab", "the clipboard");
        assert_eq!(
            shown("a\u{1b}]0;title\u{1b}\\b\u{1b}P$q\"p\u{1b}\\c"),
            "abc",
            "a title, and a question whose answer is typed"
        );
        assert_eq!(shown("a\u{8}\u{7}\u{9b}31mb\rc"), "a\u{fffd}\u{fffd}\u{fffd}31mbc");
        assert_eq!(shown("pay \u{202e}evil\u{202c}"), "pay \u{fffd}evil\u{fffd}");
    }

    #[test]
    fn what_comes_in_pieces_is_the_same() {
        let text = "é\u{1b}[31mred\u{1b}]0;t\u{7}漢\u{1b}[0m end\n";
        let mut pieces = GuestText::default();
        let joined: String = text.bytes().map(|b| pieces.show(&[b])).collect();
        assert_eq!(joined, shown(text));
        assert_eq!(GuestText::default().show(b"a\xff\x9bb\xc3"), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn an_endless_string_hides_no_more_than_a_little() {
        let text = format!("\u{1b}]0;{}the end", "x".repeat(10_000));
        assert!(shown(&text).ends_with("the end"));
    }

    #[test]
    fn every_control_and_direction_is_left_out_of_lines() {
        let dangerous =
            (0..0x20).chain(0x7f..0xa0).chain(0x202a..0x202f).chain(0x2066..0x206a).filter_map(char::from_u32);
        for c in dangerous.chain(['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}']) {
            assert_eq!(line(&format!("a{c}b")), "a b", "{:x}", u32::from(c));
            assert!(!shown(&format!("a{c}b")).contains(c) || "\n\t".contains(c), "{:x}", u32::from(c));
        }
        assert_eq!(lines("a\nb\u{1b}c"), "a\nb c");
    }
}
