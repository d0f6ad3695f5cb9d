"""A shared to-do list, as `air sim --workload` runs it: what becomes of it when its users are cut off?"""


def workload(app):
    for peer in app.peers:
        app.watch(peer, "todo", at=1)
        for number, at in enumerate(app.times(6)):
            # A field of its own for each item: two people who add one at a time never meet.
            app.put(peer, "todo", {f"{peer}-{number}": f"item {number}"}, at=at)
        # Everybody ticks off some item that they see at that moment.
        for at in app.times(15):
            app.update(peer, "todo", tick_off, at=at)


def tick_off(todo):
    open_items = sorted(key for key, text in todo.items() if text is not None)
    return {open_items[0]: None} if open_items else {}


def check(views):
    lists = [view["todo"] for view in views]
    assert all(todo == lists[0] for todo in lists), "not everybody sees the same list"
    for key, text in lists[0].items():
        assert text is None or text == f"item {key.split('-')[1]}", f"{key} has become {text!r}"
