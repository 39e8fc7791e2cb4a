"""What was read before is found by the text and all it depends on, and only so much is kept."""

from guardrail.engine.memory import Memory


def test_a_thing_is_found_by_its_text_and_what_it_depends_on() -> None:
    memory: Memory[int] = Memory(b"key", 10)

    memory.keep(memory.place("rest well", "a"), 1)

    assert memory.get(memory.place("rest well", "a")) == 1
    assert memory.get(memory.place("rest well", "b")) is None
    assert memory.get(memory.place("rest", "a")) is None


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    memory: Memory[int] = Memory(b"key", 2)
    one, two, three = (memory.place(text, None) for text in ("one", "two", "three"))

    memory.keep(one, 1)
    memory.keep(two, 2)
    memory.get(one)
    memory.keep(three, 3)

    assert (memory.get(one), memory.get(two), memory.get(three)) == (1, None, 3)


def test_places_of_different_keys_have_nothing_in_common() -> None:
    assert Memory[int](b"one", 1).place("text", None) != Memory[int](b"two", 1).place("text", None)


def test_no_text_is_kept() -> None:
    memory: Memory[int] = Memory(b"key", 2)

    memory.keep(memory.place("my secret", None), 1)

    assert "secret" not in repr(vars(memory))
