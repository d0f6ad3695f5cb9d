"""A counter that everybody reads, adds one to, and writes: the mistake that a split makes visible."""


def workload(app):
    for peer in app.peers:
        app.watch(peer, "likes", at=0.5)
        for at in app.times(5, start=2):
            app.update(peer, "likes", lambda likes: {"count": likes.get("count", 0) + 1}, at=at)
    check.clicks = sum(1 for action in app.actions if action.kind == "put")


def check(views):
    counts = {view["likes"].get("count") for view in views}
    assert counts == {check.clicks}, f"{check.clicks} clicks, but the peers count {sorted(counts)}"
