"""`python -m endpoint_operator` starts the operator."""

from endpoint_operator.controller.main import main

if __name__ == "__main__":
    main()
