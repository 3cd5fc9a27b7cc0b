def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="Rewrite the golden files of tests/unit, and the picture of the page in tests/serve.",
    )
