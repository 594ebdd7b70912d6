"""Explains the script."""

from absl import flags

from glscl_jax.errors import UserError
from glscl_jax.runtime import program

FLAG = flags.DEFINE_string("two_words", None, "Says what is printed.")
flags.DEFINE_boolean("unread", False, "Says nothing.")


def main(argv):
    print("main", argv[1:], FLAG.value)


def other(argv):
    """Explains the other."""
    if argv[1] == "bad":
        raise UserError("bad is bad")
    if argv[1] == "stop":
        raise KeyboardInterrupt
    print("other", argv, FLAG.value)


if __name__ == "__main__":
    commands = {
        "other": program.Command(other, ("ONE", "TWO"), flags=("two_words",)),
        "bare": program.Command(other),
    }
    program.run(main, ("WHAT",), commands)
