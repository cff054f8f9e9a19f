"""The matrix-vector-threshold unit (MVTU) and its parts."""
